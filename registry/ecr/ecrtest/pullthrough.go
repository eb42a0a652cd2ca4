package ecrtest

import (
	"slices"
	"strings"
)

// cacheRule is a pull through cache rule (Amazon ECR User Guide, "Using pull through cache rules").
type cacheRule struct {
	Prefix         string `json:"ecrRepositoryPrefix"`
	URL            string `json:"upstreamRegistryUrl"`
	Upstream       string `json:"upstreamRegistry,omitempty"`
	CredentialARN  string `json:"credentialArn,omitempty"`
	RoleARN        string `json:"customRoleArn,omitempty"`
	UpstreamPrefix string `json:"upstreamRepositoryPrefix,omitempty"`
	CreatedAt      epoch  `json:"createdAt"`
	UpdatedAt      epoch  `json:"updatedAt"`
}

const maxCacheRules = 50

// upstreams are the registries that rules may name, with what they need: credentials or nothing.
func upstreams() map[string]bool {
	return map[string]bool{"ecr": false, "ecr-public": false, "quay": false, "k8s": false, "docker-hub": true, "github-container-registry": true,
		"azure-container-registry": true, "gitlab-container-registry": true, "chainguard": true}
}

// upstreamOf returns the kind of an upstream URL; "" when ECR has none of the kind.
func upstreamOf(url string) string {
	if _, ok := parseHost(url); ok {
		return "ecr"
	}
	if strings.HasSuffix(url, ".azurecr.io") {
		return "azure-container-registry"
	}
	return map[string]string{"public.ecr.aws": "ecr-public", "quay.io": "quay", "registry.k8s.io": "k8s", "registry-1.docker.io": "docker-hub",
		"ghcr.io": "github-container-registry", "registry.gitlab.com": "gitlab-container-registry", "cgr.dev": "chainguard"}[url]
}

func (c *cacheRule) check(own place) error {
	kind := upstreamOf(c.URL)
	from, _ := parseHost(c.URL)
	switch {
	case c.Prefix != rootTemplate && (len(c.Prefix) < 2 || len(c.Prefix) > 30 || !nameRE.MatchString(c.Prefix)):
		return invalidParameter("ecrRepositoryPrefix", "must satisfy regular expression '^((?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*/?|ROOT)$'")
	case kind == "" || c.Upstream != "" && c.Upstream != kind:
		return errf("UnsupportedUpstreamRegistryException", "The upstream registry '%s' is not supported", c.URL)
	case upstreams()[kind] && !strings.Contains(c.CredentialARN, ":secret:ecr-pullthroughcache/"):
		return errf("InvalidParameterException", "Invalid parameter at 'credentialArn' failed to satisfy constraint: 'a secret whose name begins with ecr-pullthroughcache/ is required for %s'", kind)
	case kind == "ecr" && from == own:
		return invalidParameter("upstreamRegistryUrl", "the upstream cannot be the registry itself")
	case kind == "ecr" && from.Account != own.Account && c.RoleARN == "":
		return invalidParameter("customRoleArn", "a role is required for the registry of another account")
	case c.UpstreamPrefix != "" && c.UpstreamPrefix != rootTemplate && c.Prefix == rootTemplate:
		return invalidParameter("upstreamRepositoryPrefix", "must be ROOT when ecrRepositoryPrefix is")
	}
	return nil
}

// upstreamName is the name of the repository at the upstream; ok is false when the rule is not about it.
func (c *cacheRule) upstreamName(name string) (string, bool) {
	rest, prefix := name, strings.TrimSuffix(c.Prefix, "/")
	if c.Prefix != rootTemplate {
		var ok bool
		if rest, ok = strings.CutPrefix(name, prefix+"/"); !ok {
			return "", false
		}
	}
	if c.UpstreamPrefix == "" || c.UpstreamPrefix == rootTemplate {
		return rest, true
	}
	return strings.TrimSuffix(c.UpstreamPrefix, "/") + "/" + rest, true
}

// cacheRule returns the rule for a repository: that of the longest prefix. The caller holds r.mu.
func (r *Registry) cacheRule(name string) *cacheRule {
	var best *cacheRule
	for _, c := range r.CacheRules {
		if _, ok := c.upstreamName(name); ok && (best == nil || best.Prefix == rootTemplate || c.Prefix != rootTemplate && len(c.Prefix) > len(best.Prefix)) {
			best = c
		}
	}
	return best
}

func (r *Registry) cacheRuleAt(prefix string) (int, error) {
	i := slices.IndexFunc(r.CacheRules, func(c *cacheRule) bool { return c.Prefix == prefix })
	if i < 0 {
		return i, errf("PullThroughCacheRuleNotFoundException", "The pull through cache rule with prefix '%s' does not exist in the registry with id '%s'", prefix, r.Account)
	}
	return i, nil
}

// out is what an operation says of a rule; each says other things of it.
func (r *Registry) cacheRuleOut(c *cacheRule, members ...string) map[string]any {
	all := map[string]any{"createdAt": c.CreatedAt, "updatedAt": c.UpdatedAt}
	for k, v := range map[string]string{"registryId": r.Account, "ecrRepositoryPrefix": c.Prefix, "upstreamRegistryUrl": c.URL, "upstreamRegistry": upstreamOf(c.URL),
		"credentialArn": c.CredentialARN, "customRoleArn": c.RoleARN, "upstreamRepositoryPrefix": c.UpstreamPrefix} {
		if v != "" {
			all[k] = v
		}
	}
	for k := range all {
		if slices.Contains(members, "-"+k) {
			delete(all, k)
		}
	}
	return all
}

func createCacheRule(c call, in cacheRule) (any, error) {
	in.URL = strings.TrimSuffix(strings.TrimPrefix(in.URL, "https://"), "/")
	if in.Prefix != rootTemplate && in.UpstreamPrefix == "" {
		in.UpstreamPrefix = rootTemplate
	}
	if err := in.check(c.place); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.cacheRuleAt(in.Prefix); err == nil {
		return nil, errf("PullThroughCacheRuleAlreadyExistsException", "A pull through cache rule with prefix '%s' already exists in the registry with id '%s'", in.Prefix, c.Account)
	}
	if limit := c.emu.limit("PullThroughCacheRules", maxCacheRules); len(c.CacheRules) >= limit {
		return nil, errf("LimitExceededException", "The registry with id '%s' already has the maximum number of pull through cache rules: %d", c.Account, limit)
	}
	in.CreatedAt, in.UpdatedAt = epoch(c.emu.now()), epoch(c.emu.now())
	c.CacheRules = append(c.CacheRules, &in)
	return c.cacheRuleOut(&in, "-updatedAt"), c.saveSettings()
}

func updateCacheRule(c call, in struct {
	Prefix        string `json:"ecrRepositoryPrefix"`
	CredentialARN string `json:"credentialArn"`
	RoleARN       string `json:"customRoleArn"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.cacheRuleAt(in.Prefix)
	if err != nil {
		return nil, err
	}
	rule := *c.CacheRules[i]
	if in.CredentialARN != "" {
		rule.CredentialARN = in.CredentialARN
	}
	if in.RoleARN != "" {
		rule.RoleARN = in.RoleARN
	}
	if err := rule.check(c.place); err != nil {
		return nil, err
	}
	rule.UpdatedAt = epoch(c.emu.now())
	c.CacheRules[i] = &rule
	return c.cacheRuleOut(&rule, "-createdAt", "-upstreamRegistryUrl", "-upstreamRegistry"), c.saveSettings()
}

type cachePrefix struct {
	Prefix string `json:"ecrRepositoryPrefix"`
}

func deleteCacheRule(c call, in cachePrefix) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.cacheRuleAt(in.Prefix)
	if err != nil {
		return nil, err
	}
	rule := c.CacheRules[i]
	c.CacheRules = slices.Delete(c.CacheRules, i, i+1)
	return c.cacheRuleOut(rule, "-updatedAt", "-upstreamRegistry"), c.saveSettings()
}

func describeCacheRules(c call, in struct {
	paging
	Prefixes []string `json:"ecrRepositoryPrefixes"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := []*cacheRule{}
	for _, p := range in.Prefixes {
		i, err := c.cacheRuleAt(p)
		if err != nil {
			return nil, err
		}
		found = append(found, c.CacheRules[i])
	}
	if in.Prefixes == nil {
		found = append(found, c.CacheRules...)
	}
	found, next, err := page(found, func(c *cacheRule) string { return c.Prefix }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	out := []map[string]any{}
	for _, rule := range found {
		out = append(out, c.cacheRuleOut(rule))
	}
	return paged("pullThroughCacheRules", out, next), nil
}

// validateCacheRule says whether the emulator has the rule's upstream.
func validateCacheRule(c call, in cachePrefix) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.cacheRuleAt(in.Prefix)
	if err != nil {
		return nil, err
	}
	rule := c.CacheRules[i]
	out := c.cacheRuleOut(rule, "-createdAt", "-updatedAt", "-upstreamRegistry")
	out["isValid"] = c.upstream(rule) != nil
	if out["isValid"] == false {
		out["failure"] = "The upstream registry cannot be reached"
	}
	return out, nil
}
