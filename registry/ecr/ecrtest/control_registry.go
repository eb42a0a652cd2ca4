package ecrtest

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

func describeRegistry(c call, in struct{}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cfg := c.Replication
	if cfg == nil {
		cfg = map[string]any{"rules": []any{}}
	}
	return map[string]any{"registryId": c.Account, "replicationConfiguration": cfg}, nil
}

// putReplicationConfiguration stores the rules; nothing is replicated by them here.
func putReplicationConfiguration(c call, in struct {
	Config json.RawMessage `json:"replicationConfiguration"`
}) (any, error) {
	var cfg struct {
		Rules []struct {
			Destinations []struct {
				Region     string `json:"region"`
				RegistryID string `json:"registryId"`
			} `json:"destinations"`
		} `json:"rules"`
	}
	if err := json.Unmarshal(in.Config, &cfg); err != nil {
		return nil, errf("SerializationException", "replicationConfiguration: %v", err)
	}
	for _, r := range cfg.Rules {
		for _, d := range r.Destinations {
			if d.Region == c.Region && d.RegistryID == c.Account {
				return nil, errf("InvalidParameterException", "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'Replication destination cannot be the same as the source registry'")
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	json.Unmarshal(in.Config, &c.Replication) // decoded above
	return map[string]any{"replicationConfiguration": c.Replication}, c.saveSettings()
}

type accountSetting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func getAccountSetting(c call, in accountSetting) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.Settings[in.Name]
	if !ok {
		v = settings()[in.Name][0]
		if v == "" {
			return nil, errf("ValidationException", "no account setting %q", in.Name)
		}
	}
	return accountSetting{in.Name, v}, nil
}

func putAccountSetting(c call, in accountSetting) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := settings()[in.Name]; in.Value == "" || !slices.Contains(s[:], in.Value) {
		return nil, errf("ValidationException", "account setting %q has no value %q", in.Name, in.Value)
	}
	c.Settings[in.Name] = in.Value
	return in, c.saveSettings()
}

// settings are the account settings with their values, the default first.
func settings() map[string][2]string {
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

func listTagsForResource(c call, in resource) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.name())
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
	for _, t := range in.Tags {
		p.ResourceTag = append(slices.DeleteFunc(p.ResourceTag, func(old resourceTag) bool { return old.Key == t.Key }), t)
	}
	return struct{}{}, c.save(p)
}
