package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// replicas are fronts behind nginx, each with its own disk, and a worker that shares nothing with them but a queue.
type replicas struct {
	addr   string // of nginx
	fronts []*mirror
	worker *process
	source *gate
	target string // the destination
}

// startReplicas starts n fronts, a worker and nginx with the configuration that deploy/nginx delivers.
func startReplicas(t *testing.T, n int, source *gate) *replicas {
	t.Helper()
	programs.Need(t, "nginx", "docker-registry")
	e := startEmulator(t, "misses")
	env := append(e.env, "AWS_REGION=us-west-2")
	r := &replicas{addr: freeAddr(t), source: source, target: dockerRegistry(t)}
	mirrors := plain(registryName, source.addr, r.target) + fmt.Sprintf("  events: {sqs: %q, shared: true}\n  replication: {fronts: {registry: \"http://%s\"}}\n",
		e.Queues[0].URL, r.addr)
	var servers strings.Builder
	for range n {
		front := newMirror(t, env, "{none: true}", "role: front\n", mirrors)
		front.start(t)
		r.fronts = append(r.fronts, front)
		fmt.Fprintf(&servers, "server %s max_fails=3 fail_timeout=10s;\n", front.addr)
	}
	startNginx(t, r.addr, servers.String())
	worker := newMirror(t, env, "{none: true}", "role: worker\n", mirrors)
	worker.start(t)
	r.worker = worker.process
	return r
}

// startNginx starts nginx with deploy/nginx/nginx.conf, as it is.
func startNginx(t *testing.T, addr, servers string) {
	t.Helper()
	dir := tempDir(t)
	conf, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "nginx", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "nginx.conf"), string(conf))
	write(t, filepath.Join(dir, "replicas.conf"), servers)
	write(t, filepath.Join(dir, "listen.conf"), "listen "+addr+" backlog=4096;\n")
	p := start(t, nil, "nginx", "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"), "-g", "daemon off; pid "+filepath.Join(dir, "pid")+";")
	p.wait(t, "ready", func() bool { return status("http://"+addr+"/v2/") == http.StatusOK })
}

// Many clients behind a load balancer that hashes: the source sends each blob once, whichever replicas they are at, and the worker
// that replicates the image takes it from them.
func TestReplicas(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "nginx", "crane")
	origin := dockerRegistry(t)
	source := newGate(t, origin, &gate{})
	r := startReplicas(t, 3, source)
	var layers []packedLayer
	for i := range 9 {
		name := fmt.Sprint("replicas-", i)
		layers = append(layers, layer(t, file{name, random(name, 2<<20)}))
	}
	n := layered(t, "amd64", "replicas", layers...)
	push(t, origin, "team/app", "1", n)
	push(t, origin, "team/other", "1", n) // the same bytes under another name
	total := int64(0)
	for _, b := range n.Blobs {
		total += b.Desc.Size
	}

	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if i%2 == 0 {
				run(t, nil, "crane", "validate", "--remote", r.addr+"/team/app:1")
				return
			}
			for j := range n.Blobs { // with and without a registry's name, from the middle, and only the size
				b := n.Blobs[(i+j)%len(n.Blobs)]
				url := blobURL(r.addr, []string{"team/app", "team/other"}[i/2%2], b.Desc.Digest)
				if err := ranged(t.Context(), url+"?ns="+registryName, b, int64(j)*b.Desc.Size/16); err != nil {
					t.Error(err)
				}
				if res, err := http.Head(url); err != nil || res.StatusCode != http.StatusOK || res.ContentLength != b.Desc.Size {
					t.Errorf("HEAD: %v, %v", res, err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "the destination has the tag", func() bool { return tagged(r.target, "team/app", "1") })
	if sent := source.sent.Load(); sent != total {
		t.Errorf("the source sent %d bytes of %d: %.2f times", sent, total, float64(sent)/float64(total))
	}
	run(t, nil, "crane", "validate", "--remote", r.target+"/team/app:1")
	for _, f := range r.fronts {
		if kept, err := filepath.Glob(filepath.Join(filepath.Dir(f.config), "cache", "blobs", "sha256", "*", "*")); err != nil || len(kept) == 0 {
			t.Errorf("a replica of %d keeps none of %d blobs: %v", len(r.fronts), len(n.Blobs), err)
		}
	}
}

// A replica is killed while it fills: its clients go on where they were, at another, and no more than its share is read again.
func TestReplicaIsLost(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "nginx")
	origin := dockerRegistry(t)
	n := image(t, "amd64", "lost", 16<<20)
	large := n.Blobs[len(n.Blobs)-1]
	push(t, origin, "team/app", "1", n)
	source := newGate(t, origin, &gate{holdFrom: large.Desc.Size / 2})
	r := startReplicas(t, 3, source)
	results := make(chan error, 8)
	begun := make(chan struct{}, cap(results))
	for range cap(results) {
		go func() { results <- resuming(t.Context(), blobURL(r.addr, "team/app", large.Desc.Digest), large, begun) }()
	}
	<-source.held
	for range cap(results) {
		<-begun
	}
	killed := 0
	for _, f := range r.fronts {
		if partial, err := filepath.Glob(filepath.Join(filepath.Dir(f.config), "cache", "fills", "*")); err != nil {
			t.Fatal(err)
		} else if len(partial) > 0 {
			f.kill()
			killed++
		}
	}
	source.open()
	if killed != 1 {
		t.Errorf("%d replicas were filling one blob", killed)
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if sent, had := source.sent.Load(), source.holdFrom; sent > large.Desc.Size+had+1<<20 { // the gate counts what it reads: a buffer for every stream that broke off
		t.Errorf("the source sent %d bytes of %d, of which the lost replica had at most %d", sent, large.Desc.Size, had)
	}
	if err := ranged(t.Context(), blobURL(r.addr, "team/app", n.Blobs[0].Desc.Digest), n.Blobs[0], 0); err != nil {
		t.Error(err)
	}
	for i := range 20 { // at whichever replica they would be
		if got := status(fmt.Sprintf("http://%s/v2/team/app%d/manifests/1", r.addr, i)); got != http.StatusNotFound {
			t.Errorf("a manifest that there is not: %d", got)
		}
	}
}

// ranged reads a blob from an offset to its end.
func ranged(ctx context.Context, url string, b registrytest.Blob, from int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }() // read to its end, or failed
	got, err := io.ReadAll(res.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s from %d: after %d bytes: %w", url, from, len(got), err)
	case res.StatusCode != http.StatusPartialContent:
		return fmt.Errorf("%s from %d: %s: %.200s", url, from, res.Status, got)
	case !bytes.Equal(got, b.Body[from:]):
		return fmt.Errorf("%s from %d: wrong bytes", url, from)
	}
	return nil
}

// resuming reads a blob as container clients do: what breaks off is asked for from there on. begun gets one when the first bytes are
// there.
func resuming(ctx context.Context, url string, b registrytest.Blob, begun chan<- struct{}) error {
	var got []byte
	var last error
	for range 10 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", len(got)))
		res, err := http.DefaultClient.Do(req)
		if last = err; err != nil {
			continue
		}
		if res.StatusCode != http.StatusPartialContent {
			last = errors.New(res.Status)
			_ = res.Body.Close() // only the status counts
			continue
		}
		buf := make([]byte, 64<<10)
		for last == nil {
			var k int
			k, last = res.Body.Read(buf)
			if got = append(got, buf[:k]...); begun != nil && len(got) > 0 {
				begun <- struct{}{}
				begun = nil
			}
		}
		_ = res.Body.Close() // it ended or broke off
		if last == io.EOF && bytes.Equal(got, b.Body) {
			return nil
		}
	}
	return fmt.Errorf("%s: after %d of %d bytes: %w", url, len(got), len(b.Body), last)
}
