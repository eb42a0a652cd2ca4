package main

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

const (
	sourceKey = "arn:aws:kms:" + demoSourceRegion + ":" + demoSourceAccount + ":key/1"
	converge  = `  replication: {rules: [{repositories: ["team/**"], rename: {from: team/, to: copy/}}], settings: {mode: converge, kmsKeys: {"` + sourceKey + `": alias/mirror}}}
`
	someLifecycle = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}`
)

func policyFor(principal string) string {
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":["ecr:BatchGetImage"]}]}`
}

func someSettings() registry.Settings {
	return registry.Settings{TagMutability: "IMMUTABLE_WITH_EXCLUSION", Exclusions: []string{"latest"}, Encryption: "KMS", KMSKey: sourceKey,
		Lifecycle: someLifecycle, Policy: policyFor(`{"AWS":"` + demoSourceAccount + `"}`), Tags: map[string]string{"owner": "team"}}
}

// owner is a registry of the rig as its owner sees it.
func (r *rig) owner(account, region string) *ecr.Registry {
	r.t.Helper()
	cfg := r.emu.Config(account, region)
	reg, err := ecr.New(r.t.Context(), ecr.Options{Host: r.emu.Registry(account, region).Host(), Endpoint: r.emu.ControlURL(), AWS: &cfg})
	must(r.t, err)
	r.t.Cleanup(func() { must(r.t, reg.Close()) })
	return reg
}

func (r *rig) owners() (source, destination *ecr.Registry) {
	return r.owner(demoSourceAccount, demoSourceRegion), r.owner(demoDestinationAccount, demoDestinationRegion)
}

// created creates a repository with all of s.
func created(t *testing.T, r *ecr.Registry, repo string, s registry.Settings) {
	t.Helper()
	must(t, r.CreateWith(t.Context(), repo, s))
	must(t, r.Set(t.Context(), repo, registry.SettingLifecycle, s))
	must(t, r.Set(t.Context(), repo, registry.SettingPolicy, s))
}

// settingsPlanned returns the lines of a plan about settings.
func (r *rig) settingsPlanned(cfg *config.Config) (found []string) {
	r.t.Helper()
	var out bytes.Buffer
	_, err := plan(r.t.Context(), &adminClient{addr: cfg.Admin}, cfg, r.aws, false, newPlanWriter(&out, io.Discard, true))
	must(r.t, err)
	for in := json.NewDecoder(&out); in.More(); {
		var l planLine
		must(r.t, in.Decode(&l))
		if d := l.Setting; d != nil {
			found = append(found, d.Action+" "+d.Repository+" "+d.Setting)
		}
	}
	return found
}

func settingsAt(t *testing.T, r *ecr.Registry, repo string) registry.Settings {
	t.Helper()
	s, err := r.Settings(t.Context(), repo)
	must(t, err)
	return s
}

// wanted checks that a repository of the destination has what someSettings become there.
func wanted(t *testing.T, r *ecr.Registry, repo string, encrypted bool) {
	t.Helper()
	got := settingsAt(t, r, repo)
	want := someSettings()
	if key := got.KMSKey; encrypted && !strings.HasPrefix(key, "arn:aws:kms:"+demoDestinationRegion+":"+demoDestinationAccount+":key/") {
		t.Errorf("key %s", key)
	}
	if want.KMSKey = got.KMSKey; !encrypted {
		want.Encryption = "AES256"
	}
	want.Policy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + demoDestinationAccount + `"},"Action":"ecr:BatchGetImage"}]}`
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", repo, d)
	}
}

// Repositories are created with the settings of their sources, under their own names there; those that differ are shown, and set by sync.
func TestSettingsConverge(t *testing.T) {
	for name, served := range map[string]bool{"by the mirror that runs": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, converge)
			cfg := r.config(served)
			source, destination := r.owners()
			created(t, source, "team/new", someSettings())
			created(t, source, "team/drift", someSettings())
			created(t, source, "other", someSettings())
			must(t, destination.CreateRepository(t.Context(), "copy/drift"))
			img := registrytest.Image(1, 100)
			r.seed("team/new", "v1", img)
			want := []string{"set team/drift tag mutability", "fixed team/drift encryption", "set team/drift lifecycle policy", "set team/drift repository policy", "set team/drift tags"}
			if d := cmp.Diff(want, r.settingsPlanned(cfg)); d != "" {
				t.Errorf("plan (-want +got):\n%s", d)
			}
			if got := settingsAt(t, destination, "copy/drift"); got.Policy != "" || got.TagMutability != "MUTABLE" {
				t.Fatal("plan did something")
			}
			code, printed := r.sync(t.Context(), cfg, false)
			if code != 0 || !r.replicated("copy/new", "v1", img) {
				t.Fatalf("sync: exit code %d\n%s", code, printed)
			}
			for _, part := range []string{"setting fixed 1, setting set 4", "REPOSITORY", "owner=team", "IMMUTABLE_WITH_EXCLUSION latest"} {
				if !strings.Contains(printed, part) {
					t.Errorf("%q is not in\n%s", part, printed)
				}
			}
			wanted(t, destination, "copy/new", true)
			wanted(t, destination, "copy/drift", false)
			if d := cmp.Diff([]string{"fixed team/drift encryption"}, r.settingsPlanned(cfg)); d != "" {
				t.Errorf("afterwards (-want +got):\n%s", d)
			}
			if _, err := destination.Settings(t.Context(), "other"); registry.CodeOf(err) != registry.CodeNameUnknown {
				t.Errorf("what no rule wants: %v", err)
			}
		})
	}
}

// Mode show changes nothing, neither when a repository is created nor afterwards.
func TestSettingsShow(t *testing.T) {
	t.Parallel()
	r := newRig(t, "  replication: {settings: {mode: show}}\n")
	source, destination := r.owners()
	s := someSettings()
	s.Encryption, s.KMSKey = "AES256", ""
	created(t, source, "team/new", s)
	r.seed("team/new", "v1", registrytest.Image(1, 100))
	for range 2 {
		if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 {
			t.Fatalf("exit code %d\n%s", code, printed)
		}
	}
	want := []string{"differs team/new tag mutability", "differs team/new lifecycle policy", "differs team/new repository policy", "differs team/new tags"}
	if d := cmp.Diff(want, r.settingsPlanned(r.config(true))); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if got := settingsAt(t, destination, "team/new"); got.TagMutability != "MUTABLE" || got.Policy != "" || got.Lifecycle != "" || len(got.Tags) > 0 {
		t.Errorf("was set: %+v", got)
	}
}

// What is refused is said and left out; without a key for its encryption a repository is not created.
func TestSettingsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, converge)
	source, destination := r.owners()
	open, locked := someSettings(), someSettings()
	open.Policy = policyFor(`"*"`)
	locked.KMSKey += "2"
	created(t, source, "team/open", open)
	created(t, source, "team/locked", locked)
	img := registrytest.Image(1, 100)
	r.seed("team/open", "v1", img)
	r.seed("team/locked", "v1", img)
	want := []string{"refused team/locked encryption", "refused team/open repository policy"}
	if d := cmp.Diff(want, slices.Sorted(slices.Values(r.settingsPlanned(r.config(true))))); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	code, printed := r.sync(t.Context(), r.config(true), false)
	if code != cli.Found || !strings.Contains(printed, "of 2 jobs 1 need an operator") || !strings.Contains(printed, "its principal is everybody") {
		t.Errorf("exit code %d\n%s", code, printed)
	}
	if got := settingsAt(t, destination, "copy/open"); got.Policy != "" || got.Lifecycle == "" || !r.replicated("copy/open", "v1", img) {
		t.Errorf("copy/open: %+v", got)
	}
	if _, err := destination.Settings(t.Context(), "copy/locked"); registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("copy/locked was created: %v", err)
	}
}

// A call that fails, without effect or after it, is said, and the next sync makes it good.
func TestSettingsSyncThroughFaults(t *testing.T) {
	for _, op := range []string{"GetRepositoryPolicy", "PutImageTagMutability", "PutLifecyclePolicy", "SetRepositoryPolicy", "TagResource"} {
		for _, after := range []bool{false, true} {
			t.Run(op+map[bool]string{true: " after its effect"}[after], func(t *testing.T) {
				t.Parallel()
				r := newRig(t, converge)
				source, destination := r.owners()
				created(t, source, "team/drift", someSettings())
				must(t, destination.CreateRepository(t.Context(), "copy/drift"))
				var failed atomic.Bool
				r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
					if c.Op == op && c.Region == demoDestinationRegion && failed.CompareAndSwap(false, true) {
						return ecrtest.Fault{HangUp: true, After: after}
					}
					return ecrtest.Fault{}
				})
				if code, printed := r.sync(t.Context(), r.config(true), false); code != cli.Found || !strings.Contains(printed, "team/drift: settings: ") {
					t.Errorf("exit code %d\n%s", code, printed)
				}
				if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 {
					t.Errorf("again: exit code %d\n%s", code, printed)
				}
				wanted(t, destination, "copy/drift", false)
			})
		}
	}
}

// A repository whose creation lost its answer, or was interrupted after it, is put right by the next sync.
func TestSettingsCreationThroughFaults(t *testing.T) {
	for _, op := range []string{"CreateRepository", "PutLifecyclePolicy", "SetRepositoryPolicy"} {
		for _, after := range []bool{false, true} {
			t.Run(op+map[bool]string{true: " after its effect"}[after], func(t *testing.T) {
				t.Parallel()
				r := newRig(t, converge)
				source, destination := r.owners()
				created(t, source, "team/new", someSettings())
				img := registrytest.Image(1, 100)
				r.seed("team/new", "v1", img)
				var failed atomic.Bool
				r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
					if c.Op == op && c.Region == demoDestinationRegion && failed.CompareAndSwap(false, true) {
						return ecrtest.Fault{HangUp: true, After: after}
					}
					return ecrtest.Fault{}
				})
				for range 2 {
					if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 {
						t.Fatalf("exit code %d\n%s", code, printed)
					}
				}
				if !failed.Load() || !r.replicated("copy/new", "v1", img) {
					t.Errorf("failed %v, or the image is not there", failed.Load())
				}
				wanted(t, destination, "copy/new", true)
			})
		}
	}
}

// A setting that the destination will not have, such as a policy for a role that it does not know, keeps no image from it.
func TestSettingsThatCannotBeSet(t *testing.T) {
	t.Parallel()
	r := newRig(t, converge)
	source, destination := r.owners()
	created(t, source, "team/new", someSettings())
	img := registrytest.Image(1, 100)
	r.seed("team/new", "v1", img)
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "SetRepositoryPolicy" {
			return ecrtest.Fault{Status: 400, Code: "InvalidParameterException", Message: "Invalid principal in policy"}
		}
		return ecrtest.Fault{}
	})
	if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 || !r.replicated("copy/new", "v1", img) {
		t.Errorf("exit code %d\n%s", code, printed)
	}
	if got := settingsAt(t, destination, "copy/new"); got.Lifecycle == "" || got.Policy != "" {
		t.Errorf("%+v", got)
	}
	if code, printed := r.sync(t.Context(), r.config(true), false); code != cli.Found || !strings.Contains(printed, "setting failed 1") || !strings.Contains(printed, "Invalid principal") {
		t.Errorf("again: exit code %d\n%s", code, printed)
	}
}
