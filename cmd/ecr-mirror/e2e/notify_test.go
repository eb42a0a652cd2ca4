package e2e

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Debian's docker-registry notifies the mirror: pushes and moved tags arrive at the destination, and a deletion is planned.
func TestNotifications(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry")
	const token = "a-token-for-the-webhook"
	dir, source, destination := tempDir(t), freeAddr(t), dockerRegistry(t)
	write(t, filepath.Join(dir, "token"), token+"\n")
	m := startMirror(t, nil, plain(registryName, source, destination)+fmt.Sprintf(
		"  events: {webhook: {path: /events, tokenFile: %s}}\n  replication: {deletes: propagate, onMiss: false}\n", filepath.Join(dir, "token")))
	config := filepath.Join(dir, "config.yml")
	write(t, config, fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: %s}
notifications:
  endpoints:
  - {name: mirror, url: "http://%s/events", headers: {Authorization: [Bearer %s]}, timeout: 5s, threshold: 3, backoff: 1s}
`, filepath.Join(dir, "data"), source, m.addr, token))
	p := start(t, nil, "docker-registry", "serve", config)
	p.wait(t, "ready", func() bool { return status("http://"+source+"/v2/") == 200 })

	first, multi := image(t, "amd64", "first", 0), multiArch(t, "notified", 1<<20)
	has := func(n registrytest.Node) bool {
		body, err := get("http://" + destination + "/v2/team/app/manifests/1")
		return err == nil && string(body) == string(n.Body)
	}
	push(t, source, "team/app", "1", first)
	eventually(t, "the first image arrives", func() bool { return has(first) })
	push(t, source, "team/app", "1", multi)
	eventually(t, "the tag moves", func() bool { return has(multi) })

	req, err := http.NewRequest(http.MethodDelete, "http://"+source+"/v2/team/app/manifests/"+first.Desc.Digest.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatal(res, err)
	}
	_ = res.Body.Close() // only the status counts
	eventually(t, "the deletion is planned", func() bool {
		return strings.Contains(run(t, nil, binary(t), "plan", "--config", m.config, "--output", "json"), `"action":"delete"`)
	})
	if out := run(t, nil, binary(t), "dead-letters", "list", "--config", m.config); out != "no dead letters\n" {
		t.Errorf("dead letters:\n%s", out)
	}
}
