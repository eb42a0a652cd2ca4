package e2e

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// mirror is an `ecr-mirror serve` with its own cache directory, which a restart keeps.
type mirror struct {
	*process
	addr, admin string // the registry, the admin listener
	config      string // file
	env         []string
}

// startMirror serves with the given text under `mirrors:` until the test ends.
func startMirror(t *testing.T, env []string, mirrors string) *mirror {
	t.Helper()
	return startMirrorWith(t, env, "{none: true}", mirrors)
}

// startMirrorWith is startMirror with a choice of who may pull.
func startMirrorWith(t *testing.T, env []string, auth, mirrors string) *mirror {
	t.Helper()
	m := newMirror(t, env, auth, "", mirrors)
	m.start(t)
	return m
}

// newMirror is startMirrorWith that does not start it; top is more of the configuration beside `mirrors:`.
func newMirror(t *testing.T, env []string, auth, top, mirrors string) *mirror {
	t.Helper()
	dir := tempDir(t)
	m := &mirror{addr: freeAddr(t), admin: freeAddr(t), config: filepath.Join(dir, "config.yaml"), env: env}
	write(t, m.config, fmt.Sprintf("listen: %s\nadmin: %s\nauth: %s\ncache: {path: %s, size: 1GiB}\n%smirrors:\n%s\n",
		m.addr, m.admin, auth, filepath.Join(dir, "cache"), top, mirrors))
	return m
}

// start serves again after kill or stop.
func (m *mirror) start(t *testing.T) {
	t.Helper()
	m.process = start(t, m.env, binary(t), "serve", "--config", m.config)
	m.wait(t, "ready", func() bool { return status("http://"+m.admin+"/readyz") == 200 })
}

// configure has client-config tell a kind of client of m, and returns the directory that stands for /.
func (m *mirror) configure(t *testing.T, client string) string {
	t.Helper()
	root := t.TempDir()
	run(t, nil, binary(t), "client-config", client, "--config", m.config, "--install", "--root", root)
	return root
}

// get returns the whole body of a 200.
func get(url string) ([]byte, error) {
	res, err := open(url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // read to its end
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("get %s: %s: %s", url, res.Status, body)
	}
	return body, err
}

// open accepts every kind of manifest, as clients do. The caller closes the body.
func open(url string) (*http.Response, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", strings.Join(append(registry.ManifestTypes(), "*/*"), ", "))
	return http.DefaultClient.Do(req)
}

// status returns the status of a GET, or 0 without an answer.
func status(url string) int {
	res, err := open(url)
	if err != nil {
		return 0
	}
	_ = res.Body.Close() // only the status counts
	return res.StatusCode
}

// plain is the configuration of a mirror of plain registries.
func plain(name, source, destination string) string {
	s := fmt.Sprintf("- names: [%s]\n  source: {registry: \"http://%s\"}\n", name, source)
	if destination != "" {
		s += fmt.Sprintf("  destination: {registry: \"http://%s\"}\n", destination)
	}
	return s
}
