package ecrtest

import (
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

type accountSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func getAccountSetting(c call, in accountSetting) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.Settings[in.Name]
	if !ok {
		v = accountSettings()[in.Name][0]
		if v == "" {
			return nil, errf("ValidationException", "no account setting %q", in.Name)
		}
	}
	return accountSetting{in.Name, v}, nil
}

func putAccountSetting(c call, in accountSetting) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := accountSettings()[in.Name]; in.Value == "" || !slices.Contains(s[:], in.Value) {
		return nil, errf("ValidationException", "account setting %q has no value %q", in.Name, in.Value)
	}
	c.Settings[in.Name] = in.Value
	return in, c.saveSettings()
}

// accountSettings are the account settings with their values, the default first.
func accountSettings() map[string][2]string {
	return map[string][2]string{
		"BLOB_MOUNTING":           {"DISABLED", "ENABLED"},
		"BASIC_SCAN_TYPE_VERSION": {"AWS_NATIVE", ""},
		"REGISTRY_POLICY_SCOPE":   {"V2", ""},
	}
}

type registryPolicy struct {
	Text string `json:"policyText"`
}

func putRegistryPolicy(c call, in registryPolicy) (any, error) {
	if err := checkPolicy(iam.Registry, in.Text); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Policy = in.Text
	return map[string]any{"registryId": c.Account, "policyText": c.Policy}, c.saveSettings()
}

func getRegistryPolicy(c call, in struct{}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Policy == "" {
		return nil, errf("RegistryPolicyNotFoundException", "Registry policy does not exist in the registry with id '%s'", c.Account)
	}
	return map[string]any{"registryId": c.Account, "policyText": c.Policy}, nil
}

func deleteRegistryPolicy(c call, in struct{}) (any, error) {
	out, err := getRegistryPolicy(c, in)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Policy = ""
	return out, c.saveSettings()
}

type resource struct {
	ARN  string        `json:"resourceArn"`
	Tags []resourceTag `json:"tags"`
}

// name is the repository that the ARN ends with.
func (r resource) name() string {
	_, name, _ := strings.Cut(r.ARN, ":repository/")
	return name
}

func listTagsForResource(c call, in struct {
	ARN string `json:"resourceArn"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(resource{ARN: in.ARN}.name())
	if err != nil {
		return nil, err
	}
	return map[string]any{"tags": append([]resourceTag{}, p.ResourceTag...)}, nil
}

func tagResource(c call, in resource) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.name())
	if err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	tags := slices.Clone(p.ResourceTag)
	for _, t := range in.Tags {
		tags = append(slices.DeleteFunc(tags, func(old resourceTag) bool { return old.Key == t.Key }), t)
	}
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	p.ResourceTag = tags
	return struct{}{}, c.save(p)
}

func untagResource(c call, in struct {
	ARN  string   `json:"resourceArn"`
	Keys []string `json:"tagKeys"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(resource{ARN: in.ARN}.name())
	if err != nil {
		return nil, err
	}
	p.ResourceTag = slices.DeleteFunc(p.ResourceTag, func(t resourceTag) bool { return slices.Contains(in.Keys, t.Key) })
	return struct{}{}, c.save(p)
}
