package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// puller pulls one image.
type puller func(ctx context.Context, r request) error

// client is a row of the table.
type client struct {
	name, about string
	needs       []string
	start       func(t *testing.T) puller // its daemon, if it has one
	ranges      bool                      // it asks for layers in parts
	charts      bool                      // it pulls Helm charts, not images
}

func clients() []client {
	return []client{
		{name: "docker", about: "20.10, direct", needs: []string{"root", "docker", "dockerd"}, start: dockerPuller},
		{name: "docker, containerd store", about: "29 (moby 2.0.0-beta.24), hosts.toml with an Authorization header", start: docker29Puller},
		{name: "containerd 1.6 ctr", about: "1.6.20, hosts.toml", start: ctrPuller("")},
		{name: "containerd 1.6 CRI", about: "1.6.20, hosts.toml, kubelet's credentials", start: criPuller("", 0)},
		{name: "containerd 2 ctr", about: "2.3.4, hosts.toml", start: ctrPuller("-2")},
		{name: "containerd 2 CRI", about: "2.3.4, hosts.toml, kubelet's credentials", start: criPuller("-2", 0)},
		{name: "containerd 2 CRI, chunks", about: "2.3.4, hosts.toml, concurrent_layer_fetch_buffer", start: criPuller("-2", 1<<20), ranges: true},
		{name: "podman", about: "4.3, registries.conf", needs: []string{"root", "podman"}, start: podmanPuller},
		{name: "buildah", about: "1.28, registries.conf", needs: []string{"root", "buildah"}, start: buildahPuller},
		{name: "skopeo", about: "1.9, registries.conf", needs: []string{"skopeo"}, start: skopeoPuller},
		{name: "buildkit", about: "0.25, buildkitd.toml", needs: []string{"root", "buildkitd", "buildctl", "runc"}, start: buildkitPuller},
		{name: "crane", about: "0.22, direct", needs: []string{"crane"}, start: cranePuller},
		{name: "regctl", about: "0.11, direct", needs: []string{"regctl"}, start: regctlPuller},
		{name: "helm", about: "4.3, direct, oci:// chart", needs: []string{"helm"}, start: helmPuller, charts: true},
		{name: "oras-go", about: "2, direct", start: orasPuller},
	}
}

// command runs a client to its end.
func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out[max(0, len(out)-600):])
	}
	return nil
}

// dockerConfig is a directory with a config.json that has r's credentials, which many clients read.
func dockerConfig(r request) (dir string, err error) {
	text := "{}"
	if r.user != "" {
		text = fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, r.mirror, base64.StdEncoding.EncodeToString([]byte(r.user+":"+r.password)))
	}
	dir = filepath.Join(r.dir, "docker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600)
}

// tell has client-config write what a client has to know, and returns the directory that stands for /. The origin speaks
// plain HTTP, which is not for client-config to say.
func tell(t *testing.T, r request, client string) (root string, err error) {
	root = filepath.Join(r.dir, "root")
	return root, command(context.Background(), nil, binary(t), "client-config", client, "--mirror", "http://"+r.mirror, "--registry", r.origin, "--install", "--root", root)
}

// edit replaces a text in a file.
func edit(path, old, text string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, text)), 0o600)
}

func dockerPuller(t *testing.T) puller {
	d := startDocker(t, "")
	return func(ctx context.Context, r request) error {
		config, err := dockerConfig(r)
		if err != nil {
			return err
		}
		return command(ctx, append(d.env, "DOCKER_CONFIG="+config), "docker", "pull", "-q", r.atMirror())
	}
}

// docker29Puller pulls with Docker's containerd store, which sends a mirror no credentials but those of a header.
func docker29Puller(t *testing.T) puller {
	d, certs := startDocker29(t)
	return func(ctx context.Context, r request) error {
		now, err := hosts(t, r, "docker")
		if err == nil && r.user != "" {
			table := fmt.Sprintf("[host.%q]\n", "http://"+r.mirror)
			basic := base64.StdEncoding.EncodeToString([]byte(r.user + ":" + r.password))
			err = edit(filepath.Join(now, r.origin, "hosts.toml"), table, table+fmt.Sprintf("  header = {Authorization = %q}\n", "Basic "+basic))
		}
		if err == nil {
			err = os.CopyFS(certs, os.DirFS(now))
		}
		if err != nil {
			return err
		}
		return command(ctx, d.env, "docker", "pull", "-q", r.atOrigin())
	}
}

// hosts has the mirror in a certs.d of containerd or docker, of which the origin is the server.
func hosts(t *testing.T, r request, runtime string) (certs string, err error) {
	root, err := tell(t, r, runtime)
	if err != nil {
		return "", err
	}
	certs = filepath.Join(root, "etc", runtime, "certs.d")
	return certs, edit(filepath.Join(certs, r.origin, "hosts.toml"), "https://"+r.origin, "http://"+r.origin)
}

// ctrPuller pulls with the ctr of a containerd: of 1.6 into the native snapshotter.
func ctrPuller(suffix string) func(*testing.T) puller {
	return func(t *testing.T) puller {
		c := startContainerdOf(t, suffix, 0)
		return func(ctx context.Context, r request) error {
			certs, err := hosts(t, r, "containerd")
			if err != nil {
				return err
			}
			args := append(c.flags, "images", "pull", "--hosts-dir", certs, "--snapshotter", "native")
			if r.user != "" {
				args = append(args, "--user", r.user+":"+r.password)
			}
			return command(ctx, nil, c.ctr, append(args, r.atOrigin())...)
		}
	}
}

// criPuller pulls as kubelet does: with credentials that name no server.
func criPuller(suffix string, chunk int) func(*testing.T) puller {
	return func(t *testing.T) puller {
		c := startContainerdOf(t, suffix, chunk)
		eventually(t, "CRI answers", func() bool { return criReady(t.Context(), c.socket) })
		return func(ctx context.Context, r request) error {
			now, err := hosts(t, r, "containerd")
			if err == nil {
				err = os.CopyFS(c.certs, os.DirFS(now))
			}
			if err != nil {
				return err
			}
			return criPull(ctx, c.socket, r.atOrigin(), r.user, r.password)
		}
	}
}

// registries has the mirror in a registries.conf, and credentials in an auth.json.
func registries(t *testing.T, r request) (conf, policy, authFile string, err error) {
	root, err := tell(t, r, "podman")
	if err != nil {
		return "", "", "", err
	}
	conf = filepath.Join(root, "etc/containers/registries.conf.d/50-ecr-mirror.conf")
	if err := edit(conf, "[[registry]]\n", "[[registry]]\n  insecure = true\n"); err != nil {
		return "", "", "", err
	}
	policy = filepath.Join(r.dir, "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600); err != nil {
		return "", "", "", err
	}
	dir, err := dockerConfig(r)
	return conf, policy, filepath.Join(dir, "config.json"), err
}

func podmanPuller(t *testing.T) puller {
	dir := tempDir(t)
	return func(ctx context.Context, r request) error {
		conf, policy, auth, err := registries(t, r)
		if err != nil {
			return err
		}
		return command(ctx, []string{"CONTAINERS_REGISTRIES_CONF=" + conf}, "podman", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
			"--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
			"pull", "-q", "--signature-policy", policy, "--authfile", auth, r.atOrigin())
	}
}

func buildahPuller(t *testing.T) puller {
	dir := tempDir(t)
	return func(ctx context.Context, r request) error {
		conf, policy, auth, err := registries(t, r)
		if err != nil {
			return err
		}
		return command(ctx, []string{"CONTAINERS_REGISTRIES_CONF=" + conf}, "buildah", "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"),
			"--storage-driver", "vfs", "pull", "-q", "--signature-policy", policy, "--authfile", auth, r.atOrigin())
	}
}

func skopeoPuller(t *testing.T) puller {
	return func(ctx context.Context, r request) error {
		conf, policy, auth, err := registries(t, r)
		if err != nil {
			return err
		}
		return command(ctx, nil, "skopeo", "--policy", policy, "--registries-conf", conf, "copy", "-q", "--src-authfile", auth,
			"docker://"+r.atOrigin(), "dir:"+filepath.Join(r.dir, "image"))
	}
}

// buildkitPuller builds FROM the image. A buildkitd reads its configuration once, so every pull has its own.
func buildkitPuller(t *testing.T) puller {
	return func(ctx context.Context, r request) error {
		root, err := tell(t, r, "buildkit")
		if err != nil {
			return err
		}
		config := filepath.Join(root, "etc/buildkit/buildkitd.toml")
		if err := edit(config, "  mirrors = ", "  http = true\n  mirrors = "); err != nil { // of the origin
			return err
		}
		docker, err := dockerConfig(r)
		if err != nil {
			return err
		}
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }() // what a killed build left mounted goes with the machine
		if err := os.WriteFile(filepath.Join(r.dir, "Dockerfile"), []byte("FROM "+r.atOrigin()+"\n"), 0o600); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		addr := "unix://" + filepath.Join(dir, "sock")
		daemon := make(chan error, 1)
		go func() {
			daemon <- command(ctx, nil, "buildkitd", "--config", config, "--root", filepath.Join(dir, "root"), "--addr", addr,
				"--containerd-worker=false", "--oci-worker-snapshotter=native", "--oci-worker-net=host")
		}()
		defer func() { cancel(); <-daemon }()
		for command(ctx, nil, "buildctl", "--addr", addr, "debug", "workers") != nil {
			select {
			case err := <-daemon:
				daemon <- err
				return fmt.Errorf("buildkitd: %w", err)
			case <-time.After(50 * time.Millisecond):
			}
		}
		return command(ctx, []string{"DOCKER_CONFIG=" + docker}, "buildctl", "--addr", addr, "build", "--progress=plain", "--frontend=dockerfile.v0",
			"--local=context="+r.dir, "--local=dockerfile="+r.dir, "--output=type=oci,dest="+filepath.Join(r.dir, "image.tar"))
	}
}

func cranePuller(*testing.T) puller {
	return func(ctx context.Context, r request) error {
		config, err := dockerConfig(r)
		if err != nil {
			return err
		}
		return command(ctx, []string{"DOCKER_CONFIG=" + config}, "crane", "pull", "--platform=linux/amd64", "--format=oci", r.atMirror(), filepath.Join(r.dir, "image"))
	}
}

func regctlPuller(*testing.T) puller {
	return func(ctx context.Context, r request) error {
		config := filepath.Join(r.dir, "regctl.json")
		text := fmt.Sprintf(`{"hosts": {%q: {"tls": "disabled", "user": %q, "pass": %q}}}`, r.mirror, r.user, r.password)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		return command(ctx, []string{"REGCTL_CONFIG=" + config}, "regctl", "image", "export", "--platform", "linux/amd64", r.atMirror(), filepath.Join(r.dir, "image.tar"))
	}
}

// helmPuller pulls a chart and unpacks it.
func helmPuller(*testing.T) puller {
	return func(ctx context.Context, r request) error {
		docker, err := dockerConfig(r)
		if err != nil {
			return err
		}
		return command(ctx, []string{"HELM_CONFIG_HOME=" + r.dir, "HELM_CACHE_HOME=" + r.dir, "HELM_DATA_HOME=" + r.dir}, "helm", "pull", "oci://"+r.atMirror(), "--plain-http",
			"--registry-config", filepath.Join(docker, "config.json"), "--untar", "--untardir", filepath.Join(r.dir, "chart"))
	}
}

func orasPuller(*testing.T) puller {
	return func(ctx context.Context, r request) error {
		repo, err := remote.NewRepository(r.mirror + "/" + r.repo)
		if err != nil {
			return err
		}
		repo.PlainHTTP = true
		repo.Client = &auth.Client{Credential: auth.StaticCredential(r.mirror, auth.Credential{Username: r.user, Password: r.password})}
		_, err = oras.Copy(ctx, repo, r.ref[1:], memory.New(), "", oras.DefaultCopyOptions)
		return err
	}
}
