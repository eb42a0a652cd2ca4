package serve_test

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// locator is a Locator made of a function.
type locator func(ctx context.Context, o registry.Object) (string, time.Time, error)

func (l locator) Locate(ctx context.Context, o registry.Object) (string, time.Time, error) {
	return l(ctx, o)
}

const presigned = "https://layers.example/blob?X-Amz-Signature=s3cret"

// TestRedirect holds when a client is sent to a blob's own URL, and when that would leak and the blob comes from here.
func TestRedirect(t *testing.T) {
	var mu sync.Mutex
	url, life, fails := presigned, time.Hour, error(nil)
	w := newWorld(t, func(o *serve.Options) {
		o.Mirrors[0].Locator = locator(func(context.Context, registry.Object) (string, time.Time, error) {
			mu.Lock()
			defer mu.Unlock()
			return url, time.Now().Add(life), fails
		})
	})
	path := "/v2/app/blobs/" + w.big.Desc.Digest.String()
	for _, c := range []struct {
		name, method, path string
		header             []string
		do                 func()
		status             int
	}{
		{name: "GET", status: 307},
		{name: "a range", header: []string{"Range", "bytes=1000-"}, status: 307},
		{name: "a token, which no client carries on", header: []string{"Authorization", "Basic QVdTOng="}, status: 307},
		{name: "through a proxy", header: []string{"X-Forwarded-For", "192.0.2.1"}, status: 307},
		{name: "HEAD", method: "HEAD", status: 200},
		{name: "a manifest", path: "/v2/app/manifests/v1", status: 200},
		{name: "several ranges", header: []string{"Range", "bytes=0-1,3-4"}, status: 400},
		{name: "another mirror", path: "/v2/" + other + "/only/second/manifests/v1", status: 200},
		{name: "a header that containerd carries on", header: []string{"X-Api-Key", "s3cret"}, status: 200},
		{name: "a cookie", header: []string{"Cookie", "session=s3cret"}, status: 200},
		{name: "not there", do: func() { fails = registry.Errorf(registry.NotFound, "absent") }, status: 200},
		{name: "nobody answers", do: func() { fails = errors.New("down") }, status: 200},
		{name: "about to expire", do: func() { fails, life = nil, 59*time.Second }, status: 200},
		{name: "a URL without TLS", do: func() { life, url = time.Hour, "http://layers.example/blob" }, status: 200},
		{name: "an emulator's", do: func() { url = "http://127.0.0.1:1/blob" }, status: 307},
		{name: "no URL", do: func() { url = "/blob" }, status: 200},
	} {
		if c.do != nil {
			mu.Lock()
			c.do()
			mu.Unlock()
		}
		if c.method == "" {
			c.method = "GET"
		}
		if c.path == "" {
			c.path = path
		}
		a := w.do(t, c.method, c.path, c.header...)
		want := ""
		if c.status == 307 {
			want = url
		}
		if a.status != c.status || a.header.Get("Location") != want {
			t.Errorf("%s: %d to %q, want %d", c.name, a.status, a.header.Get("Location"), c.status)
		}
		if a.status == 307 {
			got := []string{a.header.Get("Cache-Control"), a.header.Get("Docker-Content-Digest"), string(a.body)}
			if d := cmp.Diff([]string{"no-store", w.big.Desc.Digest.String(), ""}, got); d != "" {
				t.Errorf("%s: %s", c.name, d)
			}
		}
	}
	w.Close() // what is logged of the last request is logged once it is answered
	if log := w.log.String(); strings.Contains(log, "s3cret") || !strings.Contains(log, "tier=redirect status=307") {
		t.Errorf("the log: %s", log)
	}
}

// Over plain HTTP from another machine, anybody on the way would read the URL.
func TestRedirectStaysPrivate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: hanging{}, Locator: locator(func(ctx context.Context, _ registry.Object) (string, time.Time, error) {
			asked++
			if asked > 1 {
				<-ctx.Done() // a second is all it gets
			}
			return presigned, time.Now().Add(time.Hour), ctx.Err()
		})}}})
		for _, c := range []struct {
			url, peer string
			status    int
			took      time.Duration
		}{
			{"http://mirror/v2/app/blobs/", "192.0.2.1:1000", 503, 10 * time.Second},
			{"https://mirror/v2/app/blobs/", "192.0.2.1:1000", 307, 0},
			{"https://mirror/v2/app/blobs/", "192.0.2.1:1000", 503, 10 * time.Second},
		} {
			r := httptest.NewRequest("GET", c.url+"sha256:"+strings.Repeat("a", 64), nil)
			r.RemoteAddr = c.peer
			rec := httptest.NewRecorder()
			begun := time.Now()
			h.ServeHTTP(rec, r)
			if took := time.Since(begun); rec.Code != c.status || took != c.took {
				t.Errorf("%s from %s: %d in %v, want %d in %v", c.url, c.peer, rec.Code, took, c.status, c.took)
			}
		}
	})
}
