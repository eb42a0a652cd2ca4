package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClientConfig(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "ecr-mirror.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (out, warn string, err error) {
		var o, w bytes.Buffer
		cmd := command()
		cmd.SetOut(&o)
		cmd.SetErr(&w)
		cmd.SetArgs(append([]string{"client-config"}, args...))
		err = cmd.ExecuteContext(t.Context())
		return o.String(), w.String(), err
	}
	write("listen: 127.0.0.1:5555\nmirrors: [{source: {registry: a.example.com}}, {names: [b.example.com], source: {registry: c.example.com}}]\n")
	out, warn, err := run("containerd", "--config", config)
	if err != nil || !strings.Contains(out, "certs.d/a.example.com/hosts.toml") || !strings.Contains(out, "certs.d/b.example.com/hosts.toml") ||
		!strings.Contains(out, `[host."http://127.0.0.1:5555"]`) || !strings.Contains(warn, "note: config_path") {
		t.Errorf("print: %v\n%s%s", err, out, warn)
	}
	out, warn, err = run("containerd", "--mirror", "https://m.example:1", "--registry", "x.example.com", "--root", dir, "--install")
	path := filepath.Join(dir, "etc/containerd/certs.d/x.example.com/hosts.toml")
	if b, _ := os.ReadFile(path); err != nil || out != path+": written\n" || !strings.Contains(warn, "note: ") || !strings.Contains(string(b), "https://m.example:1") {
		t.Errorf("install: %v\n%s%s", err, out, warn)
	}
	out, warn, err = run("containerd", "--mirror", "https://m.example:1", "--registry", "x.example.com", "--root", dir, "--remove")
	if _, gone := os.Stat(path); err != nil || out != path+": removed\n" || warn != "" || gone == nil {
		t.Errorf("remove: %v\n%s%s", err, out, warn)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	var o bytes.Buffer
	cmd := command()
	cmd.SetOut(&o)
	cmd.SetErr(io.Discard)
	cmd.SetArgs([]string{"client-config", "containerd", "--registry", "x.example.com", "--root", dir, "--install", "--hold"})
	if err := cmd.ExecuteContext(ended); err != nil || o.String() != path+": written\n"+path+": removed\n" {
		t.Errorf("hold: %v\n%s", err, o.String())
	}

	for name, args := range map[string][]string{
		"hold what": {"containerd", "--registry", "a.example.com", "--hold", "--root", dir},
		"no client": {}, "unknown": {"frobnicate"}, "no registry": {"podman"}, "both": {"podman", "--registry", "a.example.com", "--install", "--remove"},
		"nothing to install": {"nodeadm", "--registry", "a.example.com", "--install", "--root", dir}, "no file": {"podman", "--config", dir + "/none"},
	} {
		if _, _, err := run(args...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	write("listen: 0.0.0.0:5555\nauth: {none: true}\nmirrors: [{source: {registry: a.example.com}}]\n")
	if _, _, err := run("podman", "--config", config); err == nil || !strings.Contains(err.Error(), "--mirror") {
		t.Errorf("a listener on every address: %v", err)
	}
}
