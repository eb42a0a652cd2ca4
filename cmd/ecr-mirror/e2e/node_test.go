package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// The node job: containerd pulls through the mirror for as long as client-config holds its files, through an upgrade and the
// job's death, and finds them afterwards as they were before, byte for byte.
func TestNodeJob(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root")
	const name = "node.example.com"
	registry := dockerRegistry(t)
	for _, tag := range []string{"v1", "v2"} {
		push(t, registry, "team/app", tag, image(t, "amd64", tag, 0))
	}
	m := startMirror(t, nil, plain(name, registry, ""))
	c := startContainerdOf(t, "-2", 0)

	root := filepath.Dir(c.certs) // certs.d lies in it; the job looks for etc/containerd/certs.d
	if err := os.MkdirAll(filepath.Join(root, "etc/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	held := filepath.Join(root, "etc/containerd/certs.d")
	if err := os.Symlink(filepath.Join(root, "certs.d"), held); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(c.certs, "_default/hosts.toml"), "server = \"https://default.example.com\"\n")
	write(t, filepath.Join(c.certs, name, "hosts.toml"), "# somebody's\nserver = \"https://"+name+"\"\n")
	write(t, filepath.Join(root, "etc/containerd/config.toml"), "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/elsewhere\"\n")
	before := files(t, c.certs)
	job := func() *process {
		p := start(t, nil, binary(t), "client-config", "containerd", "--install", "--hold", "--root", root, "--config", m.config)
		p.wait(t, "installed", func() bool { return strings.Contains(p.stdout.String(), "/hosts.toml: ") })
		return p
	}
	pull := func(tag string) error { return criPull(t.Context(), c.socket, name+"/team/app:"+tag, "", "") }

	first := job()
	first.wait(t, "warned", func() bool { return strings.Contains(first.stderr.String(), `config_path = "/elsewhere"`) })
	if err := pull("v1"); err != nil {
		t.Error(err)
	}
	second := job() // as in an upgrade: the new pod first
	first.stop(t)
	if said := first.stdout.String() + first.stderr.String(); !strings.Contains(said, "kept: another") {
		t.Errorf("the first job printed:\n%s", said)
	}
	if err := pull("v2"); err != nil {
		t.Error(err)
	}
	second.kill()
	third := job()
	third.stop(t)
	if code := third.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if d := cmp.Diff(before, files(t, c.certs)); d != "" {
		t.Error(d)
	}
	if err := pull("v1"); err == nil {
		t.Error("the mirror was reached without the job")
	}
}

// files returns what is in all files under dir, by path.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all[strings.TrimPrefix(path, dir)] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
