package helm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// upstream is a registry with one image, team/app:v1.
func upstream(t *testing.T) (addr string, image registrytest.Node) {
	t.Helper()
	m := mem.New()
	image = registrytest.Image(1, 32<<20) // more than what sockets hold
	registrytest.Push(t, m, "team/app", "v1", image)
	srv := httptest.NewServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: m}}}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), image
}

// ports are arguments of helm's that have the pod listen where nothing does, on the hosts given.
func ports(t *testing.T, listen, admin string) []string {
	t.Helper()
	var args []string
	for key, host := range map[string]string{"listen": listen, "admin": admin} {
		_, port, err := net.SplitHostPort(freeAddr(t))
		if err != nil {
			t.Fatal(err)
		}
		args = append(args, "--set", "config."+key+"="+net.JoinHostPort(host, port))
	}
	return args
}

// pull gets every object of the image through a registry.
func pull(t *testing.T, client *http.Client, url string, image registrytest.Node) {
	t.Helper()
	paths := map[string]string{"/v2/team/app/manifests/v1": image.Desc.Digest.Encoded()}
	for _, b := range image.Blobs {
		paths["/v2/team/app/blobs/"+b.Desc.Digest.String()] = b.Desc.Digest.Encoded()
	}
	for path, want := range paths {
		res, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close() // read to its end
		if sum := sha256.Sum256(body); err != nil || hex.EncodeToString(sum[:]) != want {
			t.Errorf("%s: %s, %v, %d bytes", path, res.Status, err, len(body))
		}
	}
}

// certificate returns a Secret of 127.0.0.1's, and a client that trusts it.
func certificate(t *testing.T) (map[string]string, *http.Client) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	secret := map[string]string{"tls.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		"tls.key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(secret["tls.crt"]))
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(tr.CloseIdleConnections)
	return secret, &http.Client{Transport: tr}
}

// Pods of both shapes start as their specifications say, pass their probes, serve an image, and let a pull end before they do.
func TestPodsServe(t *testing.T) {
	t.Parallel()
	addr, image := upstream(t)
	source := fmt.Sprintf(`config.mirrors=[{"source":{"registry":"http://%s"}}]`, addr)
	for name, c := range map[string]struct {
		workload string
		args     []string
	}{
		"deployment": {"StatefulSet/mirror-ecr-mirror", append(ports(t, "0.0.0.0", "0.0.0.0"), "--set-json", `config.auth={"ecr":false,"htpasswd":"/run/secrets/users/htpasswd"}`,
			"--set-json", `secrets=[{"name":"tls","path":"/run/secrets/tls"},{"name":"users","path":"/run/secrets/users"}]`)},
		"daemonset": {"DaemonSet/mirror-ecr-mirror", ports(t, "127.0.0.1", "127.0.0.1")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := render(t, append([]string{"--values", cases(t)[name], "--set-json", source}, c.args...)...)
			// user:password, as htpasswd writes it
			users := "user:$2a$05$so04dsruroWR2ViJPq/x8.bJHt229zTFv6pLe2kis4/TdRPBWOd3K\n"
			cert, client := certificate(t)
			n := node{root: t.TempDir(), objects: all, secrets: map[string]map[string]string{"users": {"htpasswd": users}, "tls": cert}}
			p := n.run(t, find(t, all, c.workload))
			for _, probe := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
				eventually(t, probe, p.process, func() bool { return p.passes(t, probe) })
			}
			url := fmt.Sprintf("http://127.0.0.1:%d", p.port("registry"))
			if name == "deployment" {
				url = fmt.Sprintf("https://127.0.0.1:%d", p.port("registry"))
				if res, err := client.Get(url + "/v2/team/app/manifests/v1"); err != nil || res.Body.Close() != nil || res.StatusCode != http.StatusUnauthorized {
					t.Errorf("without a password: %v, %v", res, err)
				}
				url = strings.Replace(url, "//", "//user:password@", 1)
			}
			pull(t, client, url, image)
			if entries, err := os.ReadDir(p.volumes["cache"]); err != nil || len(entries) == 0 {
				t.Errorf("the cache's volume: %v, %v", entries, err)
			}
			p.drains(t, client, url, image.Blobs[1])
			if code := p.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit status %d", code)
			}
		})
	}
}

// drains ends the pod in the middle of a pull, which goes on to its end.
func (p *pod) drains(t *testing.T, client *http.Client, url string, layer registrytest.Blob) {
	t.Helper()
	res, err := client.Get(url + "/v2/team/app/blobs/" + layer.Desc.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sum := sha256.New()
	if _, err := io.CopyN(sum, res.Body, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not ready", p.process, func() bool { return !p.passes(t, "readinessProbe") })
	if n, err := io.Copy(sum, res.Body); err != nil || n+1 < 32<<20 || hex.EncodeToString(sum.Sum(nil)) != layer.Desc.Digest.Encoded() {
		t.Errorf("the rest of the layer: %d bytes, %v", n, err)
	}
	select {
	case <-p.done:
	case <-time.After(time.Duration(p.spec["terminationGracePeriodSeconds"].(int)) * time.Second):
		t.Error("still running at the end of its grace")
	}
}

// The pod that configures a node writes there with root's name and none of root's powers, and leaves nothing behind.
func TestNodesPod(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", cases(t)["daemonset"])
	n := node{root: t.TempDir(), objects: all}
	containerd := filepath.Join(n.root, "etc/containerd")
	if err := os.MkdirAll(filepath.Join(containerd, "certs.d/_default"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"config.toml": "version = 3\n", "certs.d/_default/hosts.toml": "server = \"https://default.example.com\"\n"} {
		if err := os.WriteFile(filepath.Join(containerd, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, containerd)
	p := n.run(t, find(t, all, "DaemonSet/mirror-ecr-mirror-nodes"))
	hosts := "/certs.d/111122223333.dkr.ecr.eu-central-1.amazonaws.com/hosts.toml"
	eventually(t, "the nodes' files", p.process, func() bool { return strings.Contains(p.out.String(), "config.toml sets no config_path") })
	if text := tree(t, containerd)[hosts]; !strings.Contains(text, `[host."http://127.0.0.1:5000"]`) || !strings.HasPrefix(text, "server = ") {
		t.Errorf("hosts.toml: %q", text)
	}
	p.stop(t, 30*time.Second)
	if code := p.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if d := cmp.Diff(before, tree(t, containerd)); d != "" {
		t.Error(d)
	}
}

// tree returns what is in all files under dir, by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all[strings.TrimPrefix(path, dir)] = string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
