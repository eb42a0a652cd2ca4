package clientconfig_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/clientconfig"
)

// tree returns every file and directory under root with its content; a directory ends in a slash.
func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		name := strings.TrimPrefix(path, root)
		switch {
		case err != nil || path == root:
			return err
		case d.IsDir():
			all[name+"/"] = ""
		default:
			b, err := os.ReadFile(path)
			all[name] = string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t *testing.T, path, content string, perm fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
}

// count returns how many of the changes are what.
func count(changes []clientconfig.Change, what string) (n int) {
	for _, c := range changes {
		if c.What == what {
			n++
		}
	}
	return n
}

// For every client that has files: installed, installed again, and removed, beside others' files and without.
func TestInstall(t *testing.T) {
	for _, c := range clientconfig.Clients() {
		if c.Files == nil {
			if _, err := c.Install(t.TempDir(), local); err == nil {
				t.Errorf("%s: installed, though it has no file", c.Name)
			}
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			root := t.TempDir()
			changes, err := c.Install(root, local)
			if err != nil || count(changes, "written") != len(changes) {
				t.Fatalf("%v, %v", changes, err)
			}
			installed := tree(t, root)
			for _, f := range c.Files(local) {
				if want, _ := f.Add(nil); installed[f.Path] != string(want) {
					t.Errorf("%s holds %q", f.Path, installed[f.Path])
				}
			}
			if changes, err = c.Install(root, local); err != nil || count(changes, "written") != 0 {
				t.Errorf("again: %v, %v", changes, err)
			}
			if d := cmp.Diff(installed, tree(t, root)); d != "" {
				t.Errorf("again: %s", d)
			}
			if changes, err = c.Uninstall(root, local); err != nil || count(changes, "removed") != len(changes) {
				t.Errorf("remove: %v, %v", changes, err)
			}
			for name := range tree(t, root) {
				if !strings.HasSuffix(name, "/") || strings.Contains(name, ecr) { // a directory of a registry would hide _default
					t.Errorf("left behind: %s", name)
				}
			}
			if changes, err = c.Uninstall(root, local); err != nil || count(changes, "removed") != 0 {
				t.Errorf("remove again: %v, %v", changes, err)
			}
		})
	}
}

// What was there is kept until it is there again, with its mode, and through a symbolic link.
func TestInstallKeeps(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "etc/containerd/certs.d", ecr, "hosts.toml")
	const was = "server = \"https://x\"\n[host.\"https://other\"]\n"
	real := filepath.Join(root, "managed/hosts.toml")
	put(t, real, was, 0o600)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, path); err != nil {
		t.Fatal(err)
	}
	c, m := client(t, "containerd"), clientconfig.Mirror{URL: local.URL, Registries: []string{ecr}}
	for range 2 {
		if _, err := c.Install(root, m); err != nil {
			t.Fatal(err)
		}
		moved := m
		moved.PullOnly = true // the second backup would be of the first change
		if _, err := c.Install(root, moved); err != nil {
			t.Fatal(err)
		}
	}
	if b, _ := os.ReadFile(real + ".before-ecr-mirror"); string(b) != was {
		t.Errorf("kept: %q", b)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v", err)
	}
	if _, err := c.Uninstall(root, m); err != nil {
		t.Fatal(err)
	}
	got := tree(t, filepath.Join(root, "managed"))
	if d := cmp.Diff(map[string]string{"/hosts.toml": was}, got); d != "" {
		t.Errorf("after all: %s", d)
	}
}

// A file that cannot be merged stays as it is, and those before it are reported.
func TestInstallStops(t *testing.T) {
	root := t.TempDir()
	m := clientconfig.Mirror{URL: local.URL, Registries: []string{"a.example.com", ecr}}
	bad := filepath.Join(root, "etc/containerd/certs.d", ecr, "hosts.toml")
	put(t, bad, "not = [TOML\n", 0o644)
	changes, err := client(t, "containerd").Install(root, m)
	if err == nil || !strings.Contains(err.Error(), bad) || len(changes) != 1 {
		t.Errorf("%v, %v", changes, err)
	}
	if b, _ := os.ReadFile(bad); string(b) != "not = [TOML\n" {
		t.Errorf("%q", b)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bad, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := client(t, "containerd").Install(root, m); err == nil {
		t.Error("a directory was taken for the file")
	}
}

// The mode is that of before and the owner as well, or for everybody to read, whatever umask and remains of a crash say.
func TestInstallKeepsModeAndOwner(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	for _, perm := range []fs.FileMode{0, 0o600, 0o640, 0o644} { // 0: no file
		root := t.TempDir()
		path, want := filepath.Join(root, "etc/docker/daemon.json"), perm
		put(t, filepath.Join(root, "victim"), "mine", 0o600)
		put(t, filepath.Join(root, "etc/docker/other"), "", 0o644)
		if perm == 0 {
			want = 0o644
		} else {
			put(t, path, "{\"debug\": true}", perm)
			if err := os.Chmod(path, perm); err != nil {
				t.Fatal(err)
			}
		}
		if perm != 0 && os.Getuid() == 0 {
			if err := os.Chown(path, 1, 2); err != nil {
				t.Fatal(err)
			}
		}
		for _, tmp := range []string{path + ".ecr-mirror.tmp", path + ".before-ecr-mirror.tmp"} {
			if err := os.Symlink(filepath.Join(root, "victim"), tmp); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := client(t, "docker-hub").Install(root, local); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{path, path + ".before-ecr-mirror"} {
			if perm == 0 && name != path {
				continue // there was nothing to keep
			}
			info, err := os.Lstat(name)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != want {
				t.Errorf("%v: mode of %s: %v", perm, name, info.Mode())
			}
			if s := info.Sys().(*syscall.Stat_t); perm != 0 && os.Getuid() == 0 && (s.Uid != 1 || s.Gid != 2) {
				t.Errorf("%v: %s belongs to %d:%d", perm, name, s.Uid, s.Gid)
			}
		}
		if b, err := os.ReadFile(filepath.Join(root, "victim")); err != nil || string(b) != "mine" {
			t.Errorf("%v: what a link in the way led to holds %q, %v", perm, b, err)
		}
	}
}

// With --root another system's / is edited: its links are not this system's.
func TestInstallStaysUnderRoot(t *testing.T) {
	for name, link := range map[string]string{"file": "etc/docker/daemon.json", "directory": "etc/docker"} {
		root, outside := t.TempDir(), t.TempDir()
		put(t, filepath.Join(outside, "daemon.json"), "{\"debug\": true}", 0o644)
		target := outside
		if name == "file" {
			target = filepath.Join(outside, "daemon.json")
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, link)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
		before := tree(t, outside)
		for _, edit := range []func(string, clientconfig.Mirror) ([]clientconfig.Change, error){client(t, "docker-hub").Install, client(t, "docker-hub").Uninstall} {
			if changes, err := edit(root, local); err == nil {
				t.Errorf("%s: %v", name, changes)
			}
		}
		if d := cmp.Diff(before, tree(t, outside)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
