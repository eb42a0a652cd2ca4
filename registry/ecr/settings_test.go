package ecr_test

import (
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

const (
	lifecyclePolicy  = `{"rules": [{"rulePriority": 1, "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 100}, "action": {"type": "expire"}}]}`
	repositoryPolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"777788889999"},"Action":"ecr:BatchGetImage"}]}`
	kmsKey           = "arn:aws:kms:us-west-2:111122223333:key/1"
)

func allSettings() registry.Settings {
	return registry.Settings{TagMutability: "IMMUTABLE_WITH_EXCLUSION", Exclusions: []string{"latest", "dev-*"}, Encryption: "KMS", KMSKey: kmsKey,
		Lifecycle: lifecyclePolicy, Policy: repositoryPolicy, Tags: map[string]string{"owner": "team", "cost": "1"}}
}

func settingsOf(t *testing.T, r *ecr.Registry, repo string) registry.Settings {
	t.Helper()
	s, err := r.Settings(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSettings(t *testing.T) {
	_, r := start(t, ecrtest.Options{})
	if _, err := r.Settings(t.Context(), "app"); registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("of no repository: %v", err)
	}
	if err := r.CreateRepository(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	plain := registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256", Tags: map[string]string{}}
	if d := cmp.Diff(plain, settingsOf(t, r, "plain")); d != "" {
		t.Errorf("of a plain one (-want +got):\n%s", d)
	}
	want := allSettings()
	if err := r.CreateWith(t.Context(), "app", want); err != nil {
		t.Fatal(err)
	}
	created := want
	created.Lifecycle, created.Policy = "", ""
	if d := cmp.Diff(created, settingsOf(t, r, "app")); d != "" {
		t.Errorf("created with (-want +got):\n%s", d)
	}
	if err := r.CreateWith(t.Context(), "plain", want); err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(plain, settingsOf(t, r, "plain")); d != "" {
		t.Errorf("one that exists was changed (-want +got):\n%s", d)
	}
	for _, s := range []registry.Setting{registry.SettingMutability, registry.SettingLifecycle, registry.SettingPolicy, registry.SettingTags} {
		if err := r.Set(t.Context(), "plain", s, want); err != nil {
			t.Error(err)
		}
	}
	want.Encryption, want.KMSKey = plain.Encryption, ""
	if d := cmp.Diff(want, settingsOf(t, r, "plain")); d != "" {
		t.Errorf("after Set (-want +got):\n%s", d)
	}
	if err := r.Set(t.Context(), "plain", registry.SettingTags, registry.Settings{Tags: map[string]string{"cost": "2"}}); err != nil {
		t.Error(err)
	}
	if got := settingsOf(t, r, "plain").Tags; got["owner"] != "team" || got["cost"] != "2" {
		t.Errorf("tags %v", got)
	}
	if err := r.Set(t.Context(), "plain", registry.SettingEncryption, want); registry.ClassOf(err) != registry.Invalid {
		t.Errorf("encryption of a repository that exists: %v", err)
	}
	if err := r.Set(t.Context(), "plain", registry.SettingPolicy, registry.Settings{Policy: "{}"}); registry.ClassOf(err) != registry.Invalid {
		t.Errorf("no policy: %v", err)
	}
}

// Every call fails once, without effect and after it: the error is that nobody answered, and the next time all is well.
func TestSettingsThroughFaults(t *testing.T) {
	all := []registry.Setting{registry.SettingMutability, registry.SettingLifecycle, registry.SettingPolicy, registry.SettingTags}
	for _, op := range []string{"DescribeRepositories", "GetLifecyclePolicy", "GetRepositoryPolicy", "ListTagsForResource", "PutImageTagMutability",
		"PutLifecyclePolicy", "SetRepositoryPolicy", "TagResource"} {
		for _, after := range []bool{false, true} {
			t.Run(op+map[bool]string{true: " after its effect"}[after], func(t *testing.T) {
				emu, r := start(t, ecrtest.Options{})
				if err := r.CreateRepository(t.Context(), "app"); err != nil {
					t.Fatal(err)
				}
				var failed atomic.Bool
				emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
					if c.Op == op && failed.CompareAndSwap(false, true) {
						return ecrtest.Fault{HangUp: true, After: after}
					}
					return ecrtest.Fault{}
				})
				want := allSettings()
				try := func() (registry.Settings, error) {
					for _, s := range all {
						if err := r.Set(t.Context(), "app", s, want); err != nil {
							return want, err
						}
					}
					return r.Settings(t.Context(), "app")
				}
				if _, err := try(); registry.ClassOf(err) != registry.Unavailable || err == nil || !failed.Load() {
					t.Errorf("first: %v", err)
				}
				got, err := try()
				want.Encryption, want.KMSKey = "AES256", ""
				if d := cmp.Diff(want, got); d != "" || err != nil {
					t.Errorf("second: %v (-want +got):\n%s", err, d)
				}
			})
		}
	}
}
