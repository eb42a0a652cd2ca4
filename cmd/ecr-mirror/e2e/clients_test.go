package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// registryName is a host that exists nowhere: a pull that asks it instead of the mirror fails.
const registryName = "registry.invalid"

func TestContainerd(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "containerd", "ctr", "runc", "docker-registry")
	source := dockerRegistry(t)
	multi := multiArch(t, "contained", 1<<20)
	push(t, source, "team/app", "1", multi)
	// The second mirror is asked by ns alone.
	m := startMirror(t, nil, plain("first.invalid", dockerRegistry(t), "")+plain(registryName, source, ""))
	c := startContainerd(t)
	hosts := filepath.Join(m.configure(t, "containerd"), "etc/containerd/certs.d")

	for i, name := range []string{registryName + "/team/app:1", ref(registryName+"/team/app", multi)} {
		c.run(t, "images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", name)
		var got string
		for n := 0; got == "" && n < 5; n++ { // of a container that ends at once, ctr may lose all output (containerd issues 770, 856)
			got = c.run(t, "run", "--rm", "--snapshotter", "native", name, fmt.Sprintf("e2e-%d-%d", i, n))
		}
		if strings.TrimSpace(got) != printed("contained") {
			t.Errorf("ctr run %s printed %q, want %q", name, got, printed("contained"))
		}
	}
	out, err := c.try(t, "images", "pull", "--hosts-dir", hosts, "--snapshotter", "native", registryName+"/team/none:1")
	if err == nil {
		t.Errorf("pull of what is nowhere succeeded:\n%s", out)
	}
}

// registriesConf sends the pulls of registryName to the mirror.
func registriesConf(t *testing.T, m *mirror) (conf, policy string) {
	t.Helper()
	root := m.configure(t, "podman")
	policy = filepath.Join(root, "policy.json")
	write(t, policy, `{"default": [{"type": "insecureAcceptAnything"}]}`)
	return filepath.Join(root, "etc/containers/registries.conf.d/50-ecr-mirror.conf"), policy
}

func TestPodman(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "podman", "runc", "docker-registry")
	source := dockerRegistry(t)
	multi := multiArch(t, "podded", 1<<20)
	push(t, source, "team/app", "1", multi)
	m := startMirror(t, nil, plain(registryName, source, ""))
	conf, policy := registriesConf(t, m)
	dir := tempDir(t)
	podman := func(args ...string) string {
		return run(t, []string{"CONTAINERS_REGISTRIES_CONF=" + conf}, "podman", append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
			"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"}, args...)...)
	}
	for _, name := range []string{registryName + "/team/app:1", ref(registryName+"/team/app", multi)} {
		podman("pull", "-q", "--signature-policy", policy, name)
		// podman's own limits are above what root may set on some machines.
		got := podman("run", "--rm", "--pull=never", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", name)
		if !strings.HasSuffix(strings.TrimSpace(got), printed("podded")) {
			t.Errorf("podman run %s printed %q, want %q", name, got, printed("podded"))
		}
	}
}

func TestSkopeo(t *testing.T) {
	t.Parallel()
	programs.Need(t, "skopeo", "docker-registry")
	source, target := dockerRegistry(t), dockerRegistry(t)
	multi := multiArch(t, "copied", 1<<20)
	push(t, source, "team/app", "1", multi)
	m := startMirror(t, nil, plain(registryName, source, ""))
	conf, policy := registriesConf(t, m)
	// skopeo verifies every byte that it copies.
	run(t, nil, "skopeo", "--policy", policy, "--registries-conf", conf, "copy", "--all", "--preserve-digests", "--dest-tls-verify=false",
		"docker://"+registryName+"/team/app:1", "docker://"+target+"/copy:1")
	got := run(t, nil, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+target+"/copy:1")
	if got != string(multi.Body) {
		t.Errorf("the copy's manifest: %s, want %s", got, multi.Body)
	}
}

func TestCrane(t *testing.T) {
	t.Parallel()
	programs.Need(t, "crane", "docker-registry")
	source := dockerRegistry(t)
	multi := multiArch(t, "craned", 1<<20)
	push(t, source, "team/app", "1", multi)
	push(t, source, "team/app", "2", image(t, "amd64", "second", 0))
	m := startMirror(t, nil, plain(registryName, source, ""))
	if got := strings.TrimSpace(run(t, nil, "crane", "digest", m.addr+"/team/app:1")); got != multi.Desc.Digest.String() {
		t.Errorf("crane digest: %s, want %s", got, multi.Desc.Digest)
	}
	if got := strings.Fields(run(t, nil, "crane", "ls", m.addr+"/team/app")); strings.Join(got, " ") != "1 2" {
		t.Errorf("crane ls: %q, want 1 and 2", got)
	}
	run(t, nil, "crane", "validate", "--remote", m.addr+"/team/app:1")
	run(t, nil, "crane", "pull", "--platform=linux/arm64", "--format=oci", m.addr+"/team/app:1", t.TempDir())
}
