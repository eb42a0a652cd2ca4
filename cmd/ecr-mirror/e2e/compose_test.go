package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// containerImage builds the Dockerfile, and returns an archive with the image ecr-mirror:dev for docker load. What the Dockerfile
// takes from a registry, the Go image on Debian, is made of this machine: its /usr, Go, modules and build cache.
func containerImage(t *testing.T) string {
	t.Helper()
	programs.Need(t, "root", "buildah")
	dir := tempDir(t)
	buildah := func(args ...string) string {
		return strings.TrimSpace(run(t, nil, "buildah", append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}, args...)...))
	}
	base := filepath.Join(dir, "base")
	for _, d := range []string{"etc/ssl/certs", "usr", "root", "proc", "sys", "dev", "go/pkg/mod"} {
		if err := os.MkdirAll(filepath.Join(base, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+link, filepath.Join(base, link)); err != nil {
			t.Fatal(err)
		}
	}
	roots, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(base, "etc/ssl/certs/ca-certificates.crt"), string(roots))
	if err := os.Mkdir(filepath.Join(base, "tmp"), 0o777); err != nil {
		t.Fatal(err)
	}
	goEnv := strings.Split(run(t, nil, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE", "GOPROXY"), "\n")
	goRoot, modules, cache, proxy := goEnv[0], goEnv[1], goEnv[2], goEnv[3]
	from := buildah("from", "scratch")
	buildah("add", "-q", from, base, "/")
	buildah("config", "--env", "PATH="+filepath.Join(goRoot, "bin")+":/usr/bin", "--env", "GOTOOLCHAIN=local", "--env", "GOPROXY="+proxy, "--env", "GOPATH=/go", "--env", "GOCACHE=/root/.cache/go-build", from)
	buildah("commit", "-q", "--rm", from, "docker.io/library/golang:1.26-bookworm")
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, "go", "-C", root, "mod", "download")
	buildah("bud", "--isolation", "chroot", "--pull-never", "--format", "docker", "-v", "/usr:/usr:ro", "-v", goRoot+":"+goRoot+":ro", "-v", modules+":/go/pkg/mod",
		"-v", cache+":/root/.cache/go-build", "--build-arg", "VERSION=v0.0.0-e2e", "-t", "ecr-mirror:dev", "-f", filepath.Join(root, "Dockerfile"), root)
	archive := filepath.Join(dir, "image.tar")
	buildah("push", "-q", "ecr-mirror:dev", "docker-archive:"+archive+":ecr-mirror:dev")
	return archive
}

// What deploy/compose starts is a mirror between two regions: an image that is pushed to the one is pulled through the mirror and
// is in the other. Both containers are of the image that the Dockerfile makes, without privileges and on a file system that they
// cannot write to. Nothing of it stays.
func TestCompose(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-compose", "buildah", "aws", "ip", "nsenter")
	archive := containerImage(t)
	d, net := startDockerApart(t)
	d.run(t, "load", "-q", "-i", archive)
	file := filepath.Join("..", "..", "..", "deploy", "compose", "compose.yaml")
	compose := func(args ...string) string {
		return run(t, d.env, "docker-compose", append([]string{"-f", file, "-p", "e2e"}, args...)...)
	}
	compose("up", "-d", "--no-build")
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := try(t, d.env, "docker-compose", "-f", file, "-p", "e2e", "logs", "--tail", "40") // what there is of it
			t.Log(out)
		}
	})
	env := append(d.env, "AWS_ACCESS_KEY_ID=AKIA111122223333EMUL", "AWS_SECRET_ACCESS_KEY=CzT+fwy233K/154t+ryT8FGDxcWIP02M6HdtmUwu",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=")
	ecr := func(region string, args ...string) string {
		return run(t, env, "nsenter", append([]string{net, "aws", "--endpoint-url", "http://127.0.0.1:4566", "--region", region, "--output", "text", "ecr"}, args...)...)
	}
	eventually(t, "the emulator answers", func() bool {
		return exec.Command("nsenter", net, "curl", "-sf", "http://127.0.0.1:5001/readyz").Run() == nil
	})
	ecr("us-west-2", "create-repository", "--repository-name", "team/app")
	d.run(t, "login", "-u", "AWS", "-p", strings.TrimSpace(ecr("us-west-2", "get-login-password")), "127.0.0.1:5010")
	d.run(t, "tag", "ecr-mirror:dev", "127.0.0.1:5010/team/app:v1")
	d.run(t, "push", "127.0.0.1:5010/team/app:v1")
	compose("exec", "-T", "mirror", "/ecr-mirror", "ready", "--config", "/etc/ecr-mirror/config.yaml", "--timeout", "1m", "team/app:v1")
	if got := ecr("eu-central-1", "describe-images", "--repository-name", "team/app", "--query", "imageDetails[].imageTags[]"); strings.TrimSpace(got) != "v1" {
		t.Errorf("at the destination: %q", got)
	}
	d.run(t, "rmi", "127.0.0.1:5010/team/app:v1")
	d.run(t, "pull", "-q", "127.0.0.1:5000/team/app:v1")
	id := func(ref string) string { return d.run(t, "inspect", "-f", "{{.Id}}", ref) }
	if id("127.0.0.1:5000/team/app:v1") != id("ecr-mirror:dev") {
		t.Error("what was pulled is not what was pushed")
	}
	if got := d.run(t, "run", "--rm", "--network=none", "127.0.0.1:5000/team/app:v1", "version"); !strings.Contains(got, "v0.0.0-e2e") {
		t.Errorf("version: %s", got)
	}
	if got := d.run(t, "inspect", "-f", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}}", "e2e_mirror_1"); strings.TrimSpace(got) != "65532:65532 true [ALL]" {
		t.Errorf("the mirror's container: %s", got)
	}

	compose("down", "-v")
	left := d.run(t, "ps", "-aq") + d.run(t, "volume", "ls", "-q") + d.run(t, "network", "ls", "-q", "--filter", "type=custom")
	if left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// startDockerApart starts a dockerd in a network of its own, where it may have bridges and publish any port, and returns nsenter's
// option for that network.
func startDockerApart(t *testing.T) (docker, string) {
	t.Helper()
	dir := tempDir(t)
	d := docker{[]string{"DOCKER_HOST=unix://" + filepath.Join(dir, "sock"), "DOCKER_CONFIG=" + filepath.Join(dir, "client")}}
	p := start(t, d.env, "unshare", "--net", "sh", "-c", `ip link set lo up && exec dockerd "$@"`, "sh", "--iptables=false", "--ip6tables=false",
		"--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"), "-H", "unix://"+filepath.Join(dir, "sock"))
	p.wait(t, "ready", func() bool { _, err := try(t, d.env, "docker", "version"); return err == nil })
	return d, "--net=/proc/" + strconv.Itoa(p.Process.Pid) + "/ns/net"
}
