package remote_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// TestDistribution runs the suite against CNCF Distribution, as Debian packages it (docker-registry). Where that is not
// installed there is nothing to test, except in CI, which has to have it.
func TestDistribution(t *testing.T) {
	binary, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("not run: docker-registry is not installed")
	}
	addr := startDistribution(t, binary)
	runs := 0
	registrytest.Run(t, func(t *testing.T) registrytest.Subject {
		r := open(t, remote.Options{Registry: "http://" + addr})
		runs++
		// Distribution 2 has no referrers API, and answers 500 when a blob is asked for as a manifest.
		return registrytest.Subject{Reader: r, Writer: r, Lister: r, EmptyBlobs: true, NoReferrers: true, MixedKinds: true, Repo: fmt.Sprint("run", runs)}
	})
}

func startDistribution(t *testing.T, binary string) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), addr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(binary, "serve", config)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry:\n%s", out.String())
		}
	})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if resp, err := client.Get("http://" + addr + "/v2/"); err == nil {
			resp.Body.Close()
			return addr
		}
	}
	t.Fatal("docker-registry does not answer")
	return ""
}
