package clientconfig_test

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/clientconfig"
)

const certs = "etc/containerd/certs.d"

func hold(t *testing.T, root string, registries ...string) *clientconfig.Holding {
	t.Helper()
	h, _, err := client(t, "containerd").Hold(root, clientconfig.Mirror{URL: local.URL, Registries: registries})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func release(t *testing.T, h *clientconfig.Holding, wantKept bool) {
	t.Helper()
	if _, kept, err := h.Release(); err != nil || kept != wantKept {
		t.Errorf("release: kept %t, %v; want %t", kept, err, wantKept)
	}
}

// told returns the registries that have a hosts.toml under root, but for those with others' text alone.
func told(t *testing.T, root string) (registries []string) {
	t.Helper()
	for name, text := range tree(t, root) {
		if strings.Contains(text, "# ecr-mirror begin") && strings.HasSuffix(name, "/hosts.toml") {
			registries = append(registries, filepath.Base(filepath.Dir(name)))
		}
	}
	return registries
}

// node returns a root with files of others', and what is in it.
func node(t *testing.T) (root string, before map[string]string) {
	t.Helper()
	root = t.TempDir()
	put(t, filepath.Join(root, certs, "_default/hosts.toml"), "server = \"https://default\"\n", 0o644)
	put(t, filepath.Join(root, certs, ecr, "hosts.toml"), "# ours\nserver = \"https://x\"\n\n[host.\"https://other\"]\n", 0o600)
	return root, tree(t, root)
}

func TestHold(t *testing.T) {
	root, before := node(t)
	h := hold(t, root, ecr, other)
	if got := told(t, root); len(got) != 2 {
		t.Errorf("told of %v", got)
	}
	release(t, h, false)
	if d := cmp.Diff(before, tree(t, root)); d != "" {
		t.Error(d)
	}
}

// An upgrade: the new one begins, the old one ends and changes nothing, whichever registries they have.
func TestHoldOverlaps(t *testing.T) {
	for _, oldEndsFirst := range []bool{true, false} {
		root, before := node(t)
		first := hold(t, root, ecr, "old.example.com")
		second := hold(t, root, ecr, other)
		want := maps.Clone(tree(t, root))
		if got := told(t, root); len(got) != 2 {
			t.Errorf("told of %v", got)
		}
		if !oldEndsFirst {
			first, second = second, first
		}
		release(t, first, true)
		if d := cmp.Diff(want, tree(t, root)); d != "" {
			t.Error(d)
		}
		release(t, second, false)
		if d := cmp.Diff(before, tree(t, root)); d != "" {
			t.Error(d)
		}
	}
}

// A killed one leaves everything; the next takes out what it does not name itself, and at its end all.
func TestHoldAfterKill(t *testing.T) {
	root, before := node(t)
	h := hold(t, root, ecr, "old.example.com")
	left := tree(t, root)
	release(t, h, false)
	for name, text := range left {
		if !strings.HasSuffix(name, "/") {
			put(t, filepath.Join(root, name), text, 0o600)
		}
	}
	h = hold(t, root, other)
	if got := told(t, root); len(got) != 1 || got[0] != other {
		t.Errorf("told of %v", got)
	}
	release(t, h, false)
	if d := cmp.Diff(before, tree(t, root)); d != "" {
		t.Error(d)
	}
}

// What cannot be installed as a whole is not installed at all, but what another one holds stays.
func TestHoldFails(t *testing.T) {
	c := client(t, "containerd")
	bad := clientconfig.Mirror{URL: local.URL, Registries: []string{"new.example.com", "bad.example.com"}}
	root, _ := node(t)
	put(t, filepath.Join(root, certs, "bad.example.com/hosts.toml"), "not = [TOML\n", 0o644)
	before := tree(t, root)
	if _, _, err := c.Hold(root, bad); err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(before, tree(t, root)); d != "" {
		t.Error(d)
	}
	h := hold(t, root, ecr)
	if _, _, err := c.Hold(root, bad); err == nil {
		t.Fatal("no error")
	}
	if got := told(t, root); len(got) != 2 { // what the one brought, and the good half of the other
		t.Errorf("told of %v", got)
	}
	release(t, h, false)
	if d := cmp.Diff(before, tree(t, root)); d != "" {
		t.Error(d)
	}

	put(t, filepath.Join(root, certs, ".ecr-mirror"), "../../passwd\n", 0o644)
	if _, _, err := c.Hold(root, local); err == nil || !strings.Contains(err.Error(), "edited") {
		t.Errorf("an edited list: %v", err)
	}
	if _, _, err := client(t, "podman").Hold(root, local); err == nil {
		t.Error("podman can be held")
	}
}

func TestExamineContainerd(t *testing.T) {
	const two, one = "[plugins.\"io.containerd.cri.v1.images\"]\n", "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n"
	for text, want := range map[string]string{
		"": "sets no config_path",
		two + "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"": "",
		one + "config_path = \"/etc/containerd/certs.d\"":                                                     "",
		one + "config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"":                                 "",
		one + "config_path = \"/elsewhere\"":                                                                  "nobody reads",
		one + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.x]\n":                                  "registry.mirrors",
		two + "discard_unpacked_layers = true\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"": "", // EKS
		two + "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"":                                 "transfer service",
	} {
		root := t.TempDir()
		put(t, filepath.Join(root, "etc/containerd/config.toml"), text, 0o644)
		found, err := client(t, "containerd").Examine(root)
		if said := strings.Join(found, "\n"); err != nil || (want == "") != (said == "") || !strings.Contains(said, want) {
			t.Errorf("%s: %v, %q; want %q", text, err, found, want)
		}
	}
	root := t.TempDir()
	if found, err := client(t, "containerd").Examine(root); err != nil || len(found) != 1 {
		t.Errorf("no file: %q, %v", found, err)
	}
	put(t, filepath.Join(root, "etc/containerd/config.toml"), "not = [TOML", 0o644)
	if _, err := client(t, "containerd").Examine(root); err == nil {
		t.Error("no error")
	}
	if err := os.Remove(filepath.Join(root, "etc/containerd/config.toml")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(root, "etc/containerd/config.toml")); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, "containerd").Examine(root); err == nil {
		t.Error("a link out of root was followed")
	}
}
