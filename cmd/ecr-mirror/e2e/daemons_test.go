package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// dockerRegistry starts Debian's docker-registry (Distribution 2.8) and returns its address.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	programs.Need(t, "docker-registry")
	dir, addr := tempDir(t), freeAddr(t)
	config := filepath.Join(dir, "config.yml")
	write(t, config, fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: %s}
`, filepath.Join(dir, "data"), addr))
	p := start(t, nil, "docker-registry", "serve", config)
	p.wait(t, "ready", func() bool { return status("http://"+addr+"/v2/") == 200 })
	return addr
}

// docker is a private dockerd with its client.
type docker struct{ env []string }

// startDocker starts Debian's dockerd. hub, if there is one, is a daemon.json that is added to its own.
func startDocker(t *testing.T, hub string) docker {
	t.Helper()
	programs.Need(t, "dockerd")
	settings := map[string]any{
		"storage-driver":        "vfs",
		"max-download-attempts": 2, // five of them wait for more than a minute
	}
	if hub != "" {
		text, err := os.ReadFile(hub)
		if err == nil {
			err = json.Unmarshal(text, &settings)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return startDockerWith(t, settings, "dockerd")
}

// startDocker29 starts a dockerd whose images are in a containerd 2. It looks for hosts.toml in certs: the directory has no
// option, so it sees another /etc/docker than the host.
func startDocker29(t *testing.T) (d docker, certs string) {
	t.Helper()
	programs.Need(t, "root", "dockerd-29")
	c := startContainerdOf(t, "-2", 0)
	dir := tempDir(t)
	certs = filepath.Join(dir, "certs.d")
	if err := os.MkdirAll("/etc/docker", 0o755); err != nil {
		t.Fatal(err)
	}
	return startDockerWith(t, map[string]any{
		"containerd": c.socket, "containerd-namespace": filepath.Base(dir),
		"features": map[string]bool{"containerd-snapshotter": true}, "storage-driver": "native",
	}, "unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/docker && exec dockerd-29 "$@"`, dir, "--containerd-plugins-namespace", filepath.Base(dir)+"-plugins"), certs
}

// startDockerWith starts a dockerd without a bridge, so that it changes no network of the host.
func startDockerWith(t *testing.T, settings map[string]any, command string, args ...string) docker {
	t.Helper()
	programs.Need(t, "root", "docker")
	dir := tempDir(t)
	maps.Copy(settings, map[string]any{
		"data-root": filepath.Join(dir, "data"), "exec-root": filepath.Join(dir, "exec"), "pidfile": filepath.Join(dir, "pid"),
		"iptables": false, "ip6tables": false, "bridge": "none",
	})
	config, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "daemon.json"), string(config))
	d := docker{[]string{"DOCKER_HOST=unix://" + filepath.Join(dir, "sock"), "DOCKER_CONFIG=" + filepath.Join(dir, "client")}}
	p := start(t, d.env, command, append(args, "--config-file", filepath.Join(dir, "daemon.json"), "-H", "unix://"+filepath.Join(dir, "sock"))...)
	p.wait(t, "ready", func() bool { _, err := try(t, d.env, "docker", "version"); return err == nil })
	return d
}

func (d docker) run(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, d.env, "docker", args...)
}

// pullAndRun pulls ref, runs it and returns what it printed.
func (d docker) pullAndRun(t *testing.T, ref string) string {
	t.Helper()
	d.run(t, "pull", "-q", ref)
	return d.run(t, "run", "--rm", "--network=none", ref)
}

// containerd is a private containerd with ctr. Its namespace is private as well: runc keeps its state under /run by
// namespace, whatever containerd's own directory is.
type containerd struct {
	ctr    string
	flags  []string
	socket string
	certs  string // the directory that its CRI looks for hosts.toml in
}

func startContainerd(t *testing.T) containerd { return startContainerdOf(t, "", 0) }

// startContainerdOf starts containerd and ctr with a suffix to their names, -2 for 2.x: Debian's have none, and are 1.6. There
// is no network for the containers of its CRI. One of 2.x may fetch layers in chunks of so many bytes at once.
func startContainerdOf(t *testing.T, suffix string, chunk int) containerd {
	t.Helper()
	programs.Need(t, "root", "containerd"+suffix, "ctr"+suffix, "runc")
	dir := tempDir(t)
	c := containerd{"ctr" + suffix, nil, filepath.Join(dir, "sock"), filepath.Join(dir, "certs.d")}
	c.flags = []string{"-a", c.socket, "-n", filepath.Base(dir)}
	cri := fmt.Sprintf(`version = 2
[plugins."io.containerd.grpc.v1.cri"]
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = %q
conf_dir = %[1]q
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = %[2]q
`, dir, c.certs)
	if suffix == "-2" {
		cri = fmt.Sprintf(`version = 3
[plugins."io.containerd.cri.v1.images"]
snapshotter = "native"
[plugins."io.containerd.cri.v1.images".registry]
config_path = %q
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = [%q]
conf_dir = %[2]q
[plugins."io.containerd.grpc.v1.cri"]
stream_server_port = "0"
[plugins."io.containerd.transfer.v1.local"]
concurrent_layer_fetch_buffer = %[3]d
max_concurrent_downloads = 3
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "native"
`, c.certs, dir, chunk)
	}
	config := filepath.Join(dir, "config.toml")
	top := fmt.Sprintf("root = %q\nstate = %q\n", filepath.Join(dir, "root"), filepath.Join(dir, "state"))
	version, plugins, _ := strings.Cut(cri, "\n")
	write(t, config, version+"\n"+top+fmt.Sprintf("[grpc]\naddress = %q\n", c.socket)+plugins)
	p := start(t, nil, "containerd"+suffix, "--config", config)
	p.wait(t, "ready", func() bool { _, err := c.try(t, "version"); return err == nil })
	return c
}

func (c containerd) run(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, nil, c.ctr, slices.Concat(c.flags, args)...)
}

func (c containerd) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return try(t, nil, c.ctr, slices.Concat(c.flags, args)...)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
