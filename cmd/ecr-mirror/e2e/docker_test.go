package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

func TestDocker(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-registry")
	source := dockerRegistry(t)
	single, multi := image(t, "amd64", "single", 0), multiArch(t, "multi", 3<<20)
	push(t, source, "team/single", "1", single)
	push(t, source, "team/multi", "1", multi)
	m := startMirror(t, nil, plain("registry.example.com", source, ""))
	d := startDocker(t, "")

	for _, tt := range []struct{ name, ref, want string }{
		{"single by tag", m.addr + "/team/single:1", "single amd64"},
		{"single by digest", ref(m.addr+"/team/single", single), "single amd64"},
		{"multi-arch by tag", m.addr + "/team/multi:1", printed("multi")},
		{"multi-arch by digest", ref(m.addr+"/team/multi", multi), printed("multi")},
		{"with the registry as a prefix", m.addr + "/registry.example.com/team/multi:1", printed("multi")},
	} {
		if got := strings.TrimSpace(d.pullAndRun(t, tt.ref)); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%s: docker run %s printed %q, want %q", tt.name, tt.ref, got, tt.want)
		}
	}

	arm := d.run(t, "pull", "--platform=linux/arm64", m.addr+"/team/multi:1") +
		d.run(t, "image", "inspect", "--format={{.Architecture}}", m.addr+"/team/multi:1")
	if !strings.HasSuffix(strings.TrimSpace(arm), "arm64") {
		t.Errorf("pull of another platform: %s", arm)
	}
	if out, err := try(t, d.env, "docker", "push", m.addr+"/team/multi:1"); err == nil || !strings.Contains(out, "unsupported") {
		t.Errorf("docker push to the mirror: %v, want it refused as unsupported:\n%s", err, out)
	}
	if out, err := try(t, d.env, "docker", "pull", m.addr+"/team/none:1"); err == nil || !strings.Contains(out, "unknown") {
		t.Errorf("docker pull of what is nowhere: %v, want it unknown:\n%s", err, out)
	}
}

// Classic docker asks registry-mirrors for Docker Hub's names only.
func TestDockerRegistryMirrors(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-registry")
	source := dockerRegistry(t)
	push(t, source, "library/hello", "latest", multiArch(t, "hub", 0))
	m := startMirror(t, nil, plain("docker.io", source, ""))
	d := startDocker(t, filepath.Join(m.configure(t, "docker-hub"), "etc/docker/daemon.json"))
	if got := strings.TrimSpace(d.pullAndRun(t, "hello")); !strings.HasSuffix(got, printed("hub")) {
		t.Errorf("docker run hello printed %q, want %q", got, printed("hub"))
	}
}
