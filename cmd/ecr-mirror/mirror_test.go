package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestDemo(t *testing.T) {
	var out bytes.Buffer
	if err := runDemo(t.Context(), &out, "127.0.0.1:0", true, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), "each byte crossed regions once") {
		t.Errorf("the demo printed:\n%s", &out)
	}
}

// 64 clients pull one image that only the source has: it sends each blob once, everybody gets everything, and the
// destination ends with the image although no client asked it to.
func TestConcurrentColdPulls(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Index(registrytest.Image(1, 3<<20, 1<<20), registrytest.Image(2, 2<<20))
	r.seed("app", "v1", img)
	var clients sync.WaitGroup
	for range 64 {
		clients.Go(func() {
			if err := r.pulled("app", "v1"); err != nil {
				t.Errorf("pull: %v", err)
			}
		})
	}
	clients.Wait()
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	for _, b := range slices.Concat(img.Children[0].Blobs, img.Children[1].Blobs) {
		var sent int64
		for _, read := range r.source.LayerReads(b.Desc.Digest) {
			sent += read.Length
		}
		if sent != b.Desc.Size {
			t.Errorf("the source was asked for %d bytes of %s, which has %d", sent, b.Desc.Digest, b.Desc.Size)
		}
	}
}

func TestEventReplicates(t *testing.T) {
	r := newRig(t, "  events: {sqs: \"$queue\"}\n")
	img := registrytest.Image(1, 1<<20)
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, r.push, "app", "v1", img)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	moved := registrytest.Image(2, 1<<20)
	registrytest.Push(t, r.push, "app", "v1", moved)
	r.eventually("the moved app:v1 at the destination", func() bool { return r.replicated("app", "v1", moved) })
	r.eventually("an empty queue", func() bool {
		n, _ := r.emu.QueueLen(demoSourceAccount, demoSourceRegion, demoQueue)
		return n == 0
	})
}

// A tag made at the source, of an image that is local and at the destination already, gets there by its first pull.
func TestRetagReplicates(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Image(1, 1<<20)
	for _, tag := range []string{"v1", "v2"} {
		r.seed("app", tag, img)
		if err := r.pulled("app", tag); err != nil {
			t.Fatal(err)
		}
		r.eventually("app:"+tag+" at the destination", func() bool { return r.replicated("app", tag, img) })
	}
}

func TestOutages(t *testing.T) {
	r := newRig(t, "  tags: {ttl: 0s}\n")
	img, other, third := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20), registrytest.Image(3, 1<<20)
	r.seed("app", "v1", img)
	r.seed("app", "v2", other)
	if err := r.pulled("app", "v1"); err != nil {
		t.Fatal(err)
	}
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })

	t.Run("destination down, source up", func(t *testing.T) {
		r.destination.SetDown(true)
		defer r.destination.SetDown(false)
		if err := r.pulled("app", "v2"); err != nil {
			t.Errorf("pull: %v", err)
		}
		absent := "/v2/app/blobs/" + registrytest.Image(9, 1).Desc.Digest.String()
		if got := r.status(absent); got != http.StatusServiceUnavailable {
			t.Errorf("destination 503, source 404: got %d, want 503", got)
		}
		absent = "/v2/app/manifests/" + registrytest.Image(9, 1).Desc.Digest.String()
		if got := r.status(absent); got != http.StatusServiceUnavailable {
			t.Errorf("destination 503, source 404: got %d, want 503", got)
		}
	})
	r.eventually("app:v2 at the destination once it is up", func() bool { return r.replicated("app", "v2", other) })

	t.Run("source down, destination up", func(t *testing.T) {
		registrytest.Push(t, r.arrives, "app", "v3", third) // local has never seen it
		r.source.SetUnreachable(true)
		defer r.source.SetUnreachable(false)
		for _, tag := range []string{"v1", "v3"} {
			if err := r.pulled("app", tag); err != nil {
				t.Errorf("pull %s: %v", tag, err)
			}
		}
	})

	t.Run("both down", func(t *testing.T) {
		r.source.SetUnreachable(true)
		r.destination.SetDown(true)
		defer r.source.SetUnreachable(false)
		defer r.destination.SetDown(false)
		if err := r.pulled("app", "v1"); err != nil {
			t.Errorf("pull what is local: %v", err)
		}
		if got := r.status("/v2/app/manifests/never"); got != http.StatusServiceUnavailable {
			t.Errorf("unknown tag: got %d, want 503", got)
		}
	})
	if got := r.status("/v2/app/blobs/" + registrytest.Image(9, 1).Desc.Digest.String()); got != http.StatusNotFound {
		t.Errorf("both up: got %d, want 404", got)
	}
}

// What the layer host does wrong never reaches a client as a complete blob; what can be mended is.
func TestDamagedLayers(t *testing.T) {
	for name, test := range map[string]struct {
		fault   ecrtest.Fault
		heals   bool // the pull under way succeeds
		forever bool // the fault stays
	}{
		"cut once":     {fault: ecrtest.Fault{Damage: ecrtest.Cut, At: 500_000}, heals: true},
		"reset once":   {fault: ecrtest.Fault{Damage: ecrtest.Reset, At: 500_000}, heals: true},
		"503 once":     {fault: ecrtest.Fault{Status: 503}, heals: true},
		"wrong digest": {fault: ecrtest.Fault{Damage: ecrtest.Corrupt, At: 500_000}, forever: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "")
			img := registrytest.Image(1, 1<<20)
			r.seed("app", "v1", img)
			layer := img.Blobs[1]
			r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
				if c.Op == "GET layer" && strings.Contains(c.Target, layer.Desc.Digest.String()) && (c.Nth == 0 || test.forever) {
					return test.fault
				}
				return ecrtest.Fault{}
			})
			path := r.url + "/v2/app/blobs/" + layer.Desc.Digest.String()
			get := func() (int, []byte, error) {
				res, err := http.Get(path)
				if err != nil {
					return 0, nil, err
				}
				defer res.Body.Close()
				b, err := io.ReadAll(res.Body)
				return res.StatusCode, b, err
			}
			code, body, err := get()
			whole := err == nil && code == http.StatusOK
			if whole != test.heals {
				t.Errorf("got %d with %d bytes, %v; heals: %v", code, len(body), err, test.heals)
			}
			if whole && !bytes.Equal(body, layer.Body) {
				t.Error("a complete response with wrong bytes")
			}
			r.emu.Fault(nil)
			r.eventually("a later pull", func() bool {
				code, body, err := get()
				return err == nil && code == http.StatusOK && bytes.Equal(body, layer.Body)
			})
		})
	}
}

// Two mirrors have a repository of the same name, and the destination of one is the source of the other: neither gives out
// what only the other may read, not even while it is being filled.
func TestMirrorsDoNotLeak(t *testing.T) {
	r := newRig(t, `  names: [one.example.com]
- source: {registry: `+demoDestinationHost+`, endpoint: "$endpoint"}
  names: [two.example.com]
`)
	img := registrytest.Image(1, 4<<20)
	r.seed("app", "v1", img)
	layer := img.Blobs[1].Desc.Digest.String()
	release := make(chan struct{})
	filling := make(chan struct{})
	var once sync.Once
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "PutImage" || c.Op == "InitiateLayerUpload" {
			return ecrtest.Fault{Status: 503} // nothing gets to the other registry
		}
		if c.Op == "GET layer" && strings.Contains(c.Target, layer) {
			once.Do(func() { close(filling) })
			<-release
		}
		return ecrtest.Fault{}
	})
	first := make(chan int, 1)
	go func() { first <- r.status("/v2/app/blobs/" + layer + "?ns=one.example.com") }()
	<-filling
	for _, path := range []string{"/v2/app/blobs/" + layer, "/v2/app/manifests/" + img.Desc.Digest.String(), "/v2/app/manifests/v1"} {
		if got := r.status(path + "?ns=two.example.com"); got != http.StatusNotFound {
			t.Errorf("while it is filled, the other mirror answers %s with %d", path, got)
		}
	}
	close(release)
	if got := <-first; got != http.StatusOK {
		t.Fatalf("the mirror itself answers %d", got)
	}
	for range 2 {
		if got := r.status("/v2/app/blobs/" + layer + "?ns=two.example.com"); got != http.StatusNotFound {
			t.Errorf("once it is local, the other mirror answers %d", got)
		}
		if got := r.status("/v2/other/blobs/" + layer + "?ns=one.example.com"); got != http.StatusNotFound {
			t.Errorf("another repository answers %d", got)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	r := newRig(t, "")
	r.emu.ResetCalls()
	for path, want := range map[string]int{
		"/v2/":                                         http.StatusOK,
		"/v2/app/manifests/v1?ns=evil.example":         http.StatusNotFound,
		"/v2/App/manifests/v1":                         http.StatusBadRequest,
		"/v2/app/manifests/-v1":                        http.StatusBadRequest,
		"/v2/app/blobs/sha256:12":                      http.StatusBadRequest,
		"/v2/app/blobs/md5:" + strings.Repeat("0", 32): http.StatusBadRequest,
		"/v2/_catalog":                                 http.StatusMethodNotAllowed,
		"/v3/":                                         http.StatusNotFound,
	} {
		if got := r.status(path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	if calls := r.emu.Calls(); len(calls) != 0 {
		t.Errorf("upstreams were asked: %v", calls)
	}
}

func TestEventIsOfTheSource(t *testing.T) {
	const host = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
	sources := map[string]config.Registry{
		"its own host":     {Registry: host, Account: "111122223333", Region: "us-west-2"},
		"a FIPS host":      {Registry: "111122223333.dkr.ecr-fips.us-west-2.amazonaws.com", Account: "111122223333", Region: "us-west-2"},
		"an emulator":      {Registry: "http://127.0.0.1:5010", Type: "ecr", Account: "111122223333", Region: "us-west-2"},
		"the caller's own": {Registry: "http://127.0.0.1:5010", Type: "ecr", Region: "us-west-2"},
	}
	for name, source := range sources {
		for other, want := range map[string]bool{
			host:                                    true,
			"111122223333.dkr-ecr.us-west-2.on.aws": true,
			"111122223333.dkr.ecr-fips.us-west-2.amazonaws.com": true,
			"111122223333.dkr.ecr.us-east-1.amazonaws.com":      false,
			"444455556666.dkr.ecr.us-west-2.amazonaws.com":      source.Account == "",
			"registry.example.com":                              false,
		} {
			if got := isOf(other, source); got != want {
				t.Errorf("%s: %s: got %v", name, other, got)
			}
		}
	}
	plain := config.Registry{Registry: "https://registry.example.com:5000"}
	if !isOf("registry.example.com:5000", plain) || isOf(host, plain) || isOf("registry.example.com", plain) {
		t.Error("a registry that is not ECR is its host")
	}
}
