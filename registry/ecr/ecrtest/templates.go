package ecrtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// What a repository creation template can be applied for.
const (
	forReplication = "REPLICATION"
	forCache       = "PULL_THROUGH_CACHE"
	forPush        = "CREATE_ON_PUSH"
)

// template is a repository creation template: the settings of repositories that ECR creates by itself (Amazon ECR User Guide,
// "Repository creation templates").
type template struct {
	Prefix      string        `json:"prefix"`
	Description string        `json:"description,omitempty"`
	AppliedFor  []string      `json:"appliedFor"`
	RoleARN     string        `json:"customRoleArn,omitempty"`
	Encryption  *encryption   `json:"encryptionConfiguration,omitempty"`
	Tags        []resourceTag `json:"resourceTags,omitempty"`
	Mutability  string        `json:"imageTagMutability,omitempty"`
	Exclusions  []exclusion   `json:"imageTagMutabilityExclusionFilters,omitempty"`
	Policy      string        `json:"repositoryPolicy,omitempty"`
	Lifecycle   string        `json:"lifecyclePolicy,omitempty"`
	CreatedAt   epoch         `json:"createdAt"`
	UpdatedAt   epoch         `json:"updatedAt"`
}

// rootTemplate is the prefix of the template for what no other matches.
const rootTemplate = "ROOT"

// template returns the one that applies to a repository that ECR creates for a reason: that of the longest prefix, which ends
// at a slash. The caller holds r.mu.
func (r *Registry) template(name, reason string) *template {
	var best *template
	for _, t := range r.Templates {
		matches := t.Prefix == rootTemplate || strings.HasPrefix(name, strings.TrimSuffix(t.Prefix, "/")+"/")
		if matches && slices.Contains(t.AppliedFor, reason) && (best == nil || best.Prefix == rootTemplate || t.Prefix != rootTemplate && len(t.Prefix) > len(best.Prefix)) {
			best = t
		}
	}
	return best
}

// createFor creates a repository as a template says; without one, with default settings. The caller holds r.mu.
func (r *Registry) createFor(name, reason string) (*repository, error) {
	p := &repository{Name: name}
	if t := r.template(name, reason); t != nil {
		p.Mutability, p.Exclusions, p.Policy, p.Lifecycle = t.Mutability, t.Exclusions, t.Policy, t.Lifecycle
		p.ResourceTag, p.Encryption = slices.Clone(t.Tags), t.Encryption
	}
	return r.create(p)
}

func (t *template) check() error {
	for _, a := range t.AppliedFor {
		if !slices.Contains([]string{forReplication, forCache, forPush}, a) {
			return invalidParameter("appliedFor", "Member must satisfy enum value set: [REPLICATION, PULL_THROUGH_CACHE, CREATE_ON_PUSH]")
		}
	}
	switch {
	case t.Prefix == "" || len(t.Prefix) > 256 || t.Prefix != rootTemplate && !nameRE.MatchString(strings.TrimSuffix(t.Prefix, "/")):
		return invalidParameter("prefix", "must satisfy regular expression '^((?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*/?|ROOT)$'")
	case len(t.AppliedFor) == 0:
		return invalidParameter("appliedFor", "Member must not be empty")
	case t.RoleARN == "" && (t.Tags != nil || t.Encryption != nil && t.Encryption.Type != "AES256"):
		return errf("ValidationException", "A customRoleArn is required for resource tags and for KMS encryption")
	}
	if t.Policy != "" {
		if err := checkPolicy(iam.Repository, t.Policy); err != nil {
			return err
		}
	}
	if t.Lifecycle != "" {
		if _, err := parseLifecycle(t.Lifecycle); err != nil {
			return err
		}
	}
	return cmp.Or(checkTags(t.Tags), t.Encryption.check(), mutability{t.Mutability, t.Exclusions}.check())
}

func (r *Registry) templateAt(prefix string) (int, error) {
	i := slices.IndexFunc(r.Templates, func(t *template) bool { return t.Prefix == prefix })
	if i < 0 {
		return i, errf("TemplateNotFoundException", "The template with prefix '%s' does not exist in the registry with id '%s'", prefix, r.Account)
	}
	return i, nil
}

func (c call) templateOut(t *template) map[string]any {
	return map[string]any{"registryId": c.Account, "repositoryCreationTemplate": t}
}

func createTemplate(c call, in template) (any, error) {
	in.Mutability = cmp.Or(in.Mutability, "MUTABLE")
	if err := in.check(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.templateAt(in.Prefix); err == nil {
		return nil, errf("TemplateAlreadyExistsException", "The template with prefix '%s' already exists in the registry with id '%s'", in.Prefix, c.Account)
	}
	in.CreatedAt, in.UpdatedAt = epoch(c.emu.now()), epoch(c.emu.now())
	c.Templates = append(c.Templates, &in)
	return c.templateOut(&in), c.saveSettings()
}

// updateTemplate replaces what the request names and leaves the rest.
func updateTemplate(c call, in template) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.templateAt(in.Prefix)
	if err != nil {
		return nil, err
	}
	t := *c.Templates[i]
	t.Description, t.RoleARN = cmp.Or(in.Description, t.Description), cmp.Or(in.RoleARN, t.RoleARN)
	t.Policy, t.Lifecycle = cmp.Or(in.Policy, t.Policy), cmp.Or(in.Lifecycle, t.Lifecycle)
	if in.AppliedFor != nil {
		t.AppliedFor = in.AppliedFor
	}
	if in.Mutability != "" {
		t.Mutability, t.Exclusions = in.Mutability, in.Exclusions
	}
	if in.Encryption != nil {
		t.Encryption = in.Encryption
	}
	if in.Tags != nil {
		t.Tags = in.Tags
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	t.UpdatedAt = epoch(c.emu.now())
	c.Templates[i] = &t
	return c.templateOut(&t), c.saveSettings()
}

func deleteTemplate(c call, in struct {
	Prefix string `json:"prefix"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.templateAt(in.Prefix)
	if err != nil {
		return nil, err
	}
	t := c.Templates[i]
	c.Templates = slices.Delete(c.Templates, i, i+1)
	return c.templateOut(t), c.saveSettings()
}

func describeTemplates(c call, in struct {
	paging
	Prefixes []string `json:"prefixes"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found := []*template{}
	for _, t := range c.Templates {
		if in.Prefixes == nil || slices.Contains(in.Prefixes, t.Prefix) {
			found = append(found, t)
		}
	}
	found, next, err := page(found, func(t *template) string { return t.Prefix }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	out := paged("repositoryCreationTemplates", found, next)
	out["registryId"] = c.Account
	return out, nil
}

// encryption of a repository; nil is AES256.
type encryption struct {
	Type string `json:"encryptionType"`
	Key  string `json:"kmsKey,omitempty"`
}

func (e *encryption) check() error {
	if e == nil || slices.Contains([]string{"AES256", "KMS", "KMS_DSSE"}, e.Type) {
		return nil
	}
	return invalidParameter("encryptionConfiguration.encryptionType", "Member must satisfy enum value set: [AES256, KMS, KMS_DSSE]")
}

// resolve turns an alias into its key, as ECR does: it is the key that repositories are described with. Here every alias has one.
func (e *encryption) resolve(r *Registry) {
	if e == nil {
		return
	}
	key := e.Key
	if strings.HasPrefix(key, "alias/") {
		key = "arn:" + partition(r.Region) + ":kms:" + r.Region + ":" + r.Account + ":" + key
	}
	if place, _, ok := strings.Cut(key, ":alias/"); ok {
		e.Key = place + ":key/" + fmt.Sprintf("%x", hashed(key)[:16])
	}
}

func (e *encryption) equal(o *encryption) bool {
	a, b := encryption{Type: "AES256"}, encryption{Type: "AES256"}
	if e != nil {
		a = *e
	}
	if o != nil {
		b = *o
	}
	return a == b
}

// maxTags is how many tags a resource has at most.
const maxTags = 50

func checkTags(tags []resourceTag) error {
	if len(tags) > maxTags {
		return errf("TooManyTagsException", "The resource has more than %d tags", maxTags)
	}
	for _, t := range tags {
		if t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 || strings.HasPrefix(strings.ToLower(t.Key), "aws:") {
			return errf("InvalidTagParameterException", "Invalid tag key or value: '%s'", t.Key)
		}
	}
	return nil
}
