package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// dockerRegistry starts Debian's docker-registry (Distribution 2.8) and returns its address.
func dockerRegistry(t *testing.T) string {
	t.Helper()
	need(t, "docker-registry")
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

// startDocker starts a dockerd without a bridge, so that it changes no network of the host. hub, if there is one, is a
// daemon.json that is added to its own.
func startDocker(t *testing.T, hub string) docker {
	t.Helper()
	need(t, "root", "docker", "dockerd")
	dir := tempDir(t)
	settings := map[string]any{
		"data-root": filepath.Join(dir, "data"), "exec-root": filepath.Join(dir, "exec"), "pidfile": filepath.Join(dir, "pid"),
		"iptables": false, "ip6tables": false, "bridge": "none", "storage-driver": "vfs",
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
	config, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "daemon.json"), string(config))
	d := docker{[]string{"DOCKER_HOST=unix://" + filepath.Join(dir, "sock"), "DOCKER_CONFIG=" + filepath.Join(dir, "client")}}
	p := start(t, d.env, "dockerd", "--config-file", filepath.Join(dir, "daemon.json"), "-H", "unix://"+filepath.Join(dir, "sock"))
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
type containerd struct{ flags []string }

func startContainerd(t *testing.T) containerd {
	t.Helper()
	need(t, "root", "containerd", "ctr", "runc")
	dir := tempDir(t)
	socket := filepath.Join(dir, "sock")
	c := containerd{[]string{"-a", socket, "-n", filepath.Base(dir)}}
	config := filepath.Join(dir, "config.toml")
	write(t, config, fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = %q
`, filepath.Join(dir, "root"), filepath.Join(dir, "state"), socket))
	p := start(t, nil, "containerd", "--config", config)
	p.wait(t, "ready", func() bool { _, err := c.try(t, "version"); return err == nil })
	return c
}

func (c containerd) run(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, nil, "ctr", slices.Concat(c.flags, args)...)
}

func (c containerd) try(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return try(t, nil, "ctr", slices.Concat(c.flags, args)...)
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
