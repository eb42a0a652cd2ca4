package ecrtest

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

func itoa(n int) string { return strconv.Itoa(n) }

func getAuthorizationToken(c call, in struct {
	RegistryIDs []string `json:"registryIds"`
}) (any, error) {
	type data struct {
		Token     string `json:"authorizationToken"`
		ExpiresAt epoch  `json:"expiresAt"`
		Endpoint  string `json:"proxyEndpoint"`
	}
	ids := in.RegistryIDs
	if len(ids) > 10 {
		return nil, invalidParameter("registryIds", "Member must have length less than or equal to 10")
	}
	if len(ids) == 0 {
		ids = []string{c.who.Account}
	}
	var all []data
	for _, id := range ids { // the field does not change what the token may do
		if !accountRE.MatchString(id) {
			return nil, invalidParameter("registryIds", "must satisfy regular expression '[0-9]{12}'")
		}
		pw, expires := c.emu.mintToken(c.who, c.Region)
		host := (&Registry{place: place{id, c.Region}}).Host()
		all = append(all, data{basic(pw), epoch(expires), "https://" + host})
	}
	return map[string]any{"authorizationData": all}, nil
}

type repositoryOut struct {
	ARN        string      `json:"repositoryArn"`
	RegistryID string      `json:"registryId"`
	Name       string      `json:"repositoryName"`
	URI        string      `json:"repositoryUri"`
	CreatedAt  epoch       `json:"createdAt"`
	Mutability string      `json:"imageTagMutability"`
	Exclusions []exclusion `json:"imageTagMutabilityExclusionFilters,omitempty"`
	Scan       any         `json:"imageScanningConfiguration"`
	Encryption *encryption `json:"encryptionConfiguration"`
}

func (r *Registry) describe(p *repository) repositoryOut {
	out := repositoryOut{r.repositoryARN(p.Name), r.Account, p.Name, r.Host() + "/" + p.Name, epoch(p.CreatedAt), p.Mutability, p.Exclusions, p.Scan, p.Encryption}
	if out.Encryption == nil {
		out.Encryption = &encryption{Type: "AES256"}
	}
	return out
}

func describeRepositories(c call, in struct {
	paging
	Names []string `json:"repositoryNames"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := []repositoryOut{}
	if in.Names != nil && (in.NextToken != "" || in.MaxResults != 0 || len(in.Names) > 100) {
		return nil, invalidParameter("repositoryNames", "neither nextToken nor maxResults, and at most 100 names")
	}
	if in.Names != nil {
		for _, n := range in.Names {
			p, err := c.repo(n)
			if err != nil {
				return nil, err
			}
			all = append(all, c.describe(p))
		}
		return map[string]any{"repositories": all}, nil
	}
	for _, p := range c.repos {
		all = append(all, c.describe(p))
	}
	all, next, err := page(all, func(r repositoryOut) string { return r.Name }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	return paged("repositories", all, next), nil
}

type mutability struct {
	Mutability string      `json:"imageTagMutability"`
	Exclusions []exclusion `json:"imageTagMutabilityExclusionFilters"`
}

var exclusionRE = regexp.MustCompile(`^[0-9a-zA-Z._*-]{1,128}$`)

func (m mutability) check() error {
	if !slices.Contains([]string{"", "MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION"}, m.Mutability) {
		return invalidParameter("imageTagMutability", "Member must satisfy enum value set: [MUTABLE, IMMUTABLE, MUTABLE_WITH_EXCLUSION, IMMUTABLE_WITH_EXCLUSION]")
	}
	if (len(m.Exclusions) > 0) != strings.HasSuffix(m.Mutability, "_WITH_EXCLUSION") {
		return invalidParameter("imageTagMutabilityExclusionFilters", "filters belong to a mutability WITH_EXCLUSION, and are required there")
	}
	for _, x := range m.Exclusions {
		if x.FilterType != "WILDCARD" || !exclusionRE.MatchString(x.Filter) || len(m.Exclusions) > 5 {
			return invalidParameter("imageTagMutabilityExclusionFilters", "must be 1 to 5 WILDCARD filters that satisfy regular expression '[0-9a-zA-Z._*-]{1,128}'")
		}
	}
	return nil
}

func createRepository(c call, in struct {
	mutability
	Name string        `json:"repositoryName"`
	Tags []resourceTag `json:"tags"`
	Scan struct {
		OnPush bool `json:"scanOnPush"`
	} `json:"imageScanningConfiguration"`
	Encryption *encryption `json:"encryptionConfiguration"`
}) (any, error) {
	if err := cmp.Or(checkName(in.Name), in.check(), checkTags(in.Tags), in.Encryption.check()); err != nil {
		return nil, err
	}
	in.Encryption.resolve(c.Registry)
	if err := c.mayCreate(in.Name, len(in.Tags) > 0, in.Encryption); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.repos[in.Name] != nil {
		return nil, errf("RepositoryAlreadyExistsException", "The repository with name '%s' already exists in the registry with id '%s'", in.Name, c.Account)
	}
	p, err := c.create(&repository{Name: in.Name, Mutability: in.Mutability, Exclusions: in.Exclusions, ResourceTag: in.Tags, Scan: in.Scan, Encryption: in.Encryption})
	if err != nil {
		return nil, err
	}
	return map[string]any{"repository": c.describe(p)}, nil
}

// mayCreate checks what creating takes beside ecr:CreateRepository: ecr:TagResource for tags, and for a key of the customer's what
// ECR does with it in the caller's name (Amazon ECR User Guide, "Encryption at rest", "Required IAM permissions").
func (c call) mayCreate(name string, tags bool, e *encryption) error {
	if tags {
		if err := c.allow(c.who, "ecr:TagResource", name); err != nil {
			return err
		}
	}
	if e == nil || e.Key == "" {
		return nil
	}
	for _, action := range []string{"kms:CreateGrant", "kms:DescribeKey"} {
		r := c.who.request(c.Region, action, e.Key, "")
		r.Context = map[string]string{iam.ViaService: "ecr." + c.Region + ".amazonaws.com"}
		if v := c.emu.decide(r, c.who.Policies, nil); !v.Allowed {
			err := errf("KmsException", "User: %s is not authorized to perform: %s on resource: %s %s", c.who.caller(c.Region), action, e.Key, v.Why)
			err.Fields = map[string]any{"kmsError": "AccessDeniedException"}
			return err
		}
	}
	return nil
}

func deleteRepository(c call, in struct {
	Name  string `json:"repositoryName"`
	Force bool   `json:"force"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.Name)
	if err != nil {
		return nil, err
	}
	if len(p.Images) > 0 && !in.Force {
		return nil, errf("RepositoryNotEmptyException", "The repository with name '%s' in registry with id '%s' cannot be deleted because it still contains images", in.Name, c.Account)
	}
	return map[string]any{"repository": c.describe(p)}, c.drop(in.Name)
}

// change edits a repository and writes it down; edit returns the answer.
func (c call) change(name string, edit func(p *repository) (map[string]any, error)) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(name)
	if err != nil {
		return nil, err
	}
	out, err := edit(p)
	if err != nil {
		return nil, err
	}
	out["registryId"], out["repositoryName"] = c.Account, name
	return out, c.save(p)
}

func putImageTagMutability(c call, in struct {
	mutability
	Name string `json:"repositoryName"`
}) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		if err := in.check(); err != nil {
			return nil, err
		}
		p.Mutability, p.Exclusions = cmp.Or(in.Mutability, "MUTABLE"), in.Exclusions
		out := map[string]any{"imageTagMutability": p.Mutability}
		if p.Exclusions != nil {
			out["imageTagMutabilityExclusionFilters"] = p.Exclusions
		}
		return out, nil
	})
}

func putImageScanningConfiguration(c call, in struct {
	Name string `json:"repositoryName"`
	Scan struct {
		OnPush bool `json:"scanOnPush"`
	} `json:"imageScanningConfiguration"`
}) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		p.Scan = in.Scan
		return map[string]any{"imageScanningConfiguration": p.Scan}, nil
	})
}

type repositoryPolicy struct {
	Name  string `json:"repositoryName"`
	Text  string `json:"policyText"`
	Force bool   `json:"force"` // to lock oneself out, which nobody is kept from here
}

type repositoryName struct {
	Name string `json:"repositoryName"`
}

func setRepositoryPolicy(c call, in repositoryPolicy) (any, error) {
	if err := checkPolicy(iam.Repository, in.Text); err != nil {
		return nil, err
	}
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		p.Policy = in.Text
		return map[string]any{"policyText": p.Policy}, nil
	})
}

func getRepositoryPolicy(c call, in repositoryName) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		if p.Policy == "" {
			return nil, errf("RepositoryPolicyNotFoundException", "Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", p.Name, c.Account)
		}
		return map[string]any{"policyText": p.Policy}, nil
	})
}

func deleteRepositoryPolicy(c call, in repositoryName) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		old := p.Policy
		p.Policy = ""
		if old == "" {
			return nil, errf("RepositoryPolicyNotFoundException", "Repository policy does not exist for the repository with name '%s' in the registry with id '%s'", p.Name, c.Account)
		}
		return map[string]any{"policyText": old}, nil
	})
}
