package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// Kubelet's ECR token reaches a mirror that asks for it, with the image's own name; so does docker login's. A token of another
// region is refused, and none is in the log.
func TestECRTokenOfClients(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-registry", "aws", "containerd-2", "ctr-2", "runc")
	e := startEmulator(t)
	d := startDocker(t, "")
	e.push(t, d, "team/app", "tokened")
	m := startMirrorWith(t, e.env, "{ecr: true}", fmt.Sprintf("- source: {registry: \"http://%s\", type: ecr, account: %q, region: %s, endpoint: %q}\n",
		e.source.host, account, e.source.region, e.Endpoint))
	here, elsewhere := e.source.password(t), e.destination.password(t)

	c := startContainerdOf(t, "-2", 0)
	eventually(t, "CRI answers", func() bool { return criReady(t.Context(), c.socket) })
	r := request{origin: e.source.host, mirror: m.addr, repo: "team/app", ref: ":1", dir: t.TempDir()}
	certs, err := hosts(t, r, "containerd")
	if err != nil {
		t.Fatal(err)
	}
	// No other host to go to: what is pulled came from the mirror.
	if err := edit(filepath.Join(certs, r.origin, "hosts.toml"), "http://"+r.origin, "http://"+freeAddr(t)); err != nil {
		t.Fatal(err)
	}
	run(t, nil, "cp", "-r", certs, c.certs)
	for name, tt := range map[string]struct {
		password string
		pulled   bool
	}{"of the registry": {here, true}, "of another region": {elsewhere, false}, "none": {"", false}} {
		user := "AWS"
		if tt.password == "" {
			user = ""
		}
		if err := criPull(t.Context(), c.socket, r.atOrigin(), user, tt.password); (err == nil) != tt.pulled {
			t.Errorf("token %s: %v", name, err)
		}
	}

	if out, err := try(t, d.env, "docker", "login", "-u", "AWS", "-p", elsewhere, m.addr); err == nil {
		t.Errorf("docker login with a token of another region: %s", out)
	}
	d.run(t, "login", "-u", "AWS", "-p", here, m.addr)
	if got := strings.TrimSpace(d.pullAndRun(t, m.addr+"/team/app:1")); !strings.HasSuffix(got, "tokened amd64") {
		t.Errorf("docker run printed %q", got)
	}
	log := m.stderr.String()
	for _, token := range []string{here, elsewhere} {
		if strings.Contains(log, token[:32]) || strings.Contains(log, token[len(token)-32:]) {
			t.Error("the log holds a token")
		}
	}
	if !strings.Contains(log, "msg=denied") {
		t.Error("no refusal in the log")
	}
}
