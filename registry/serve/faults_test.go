package serve_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// TestUpstreamCalls holds what one request costs upstream: never a Stat before an Open, nothing for what is refused.
func TestUpstreamCalls(t *testing.T) {
	w := newWorld(t, nil)
	man, big := w.image.Desc.Digest.String(), w.big.Desc.Digest.String()
	for _, c := range []struct {
		method, path, rng string
		want              []string
	}{
		{"GET", "/v2/", "", nil},
		{"GET", "/v2/app/manifests/v1?ns=unknown.example", "", nil},
		{"GET", "/v2/10.0.0.1:80/app/manifests/v1", "", nil},
		{"PUT", "/v2/app/manifests/v1", "", nil},
		{"GET", "/v2/app/blobs/sha256:1", "", nil},
		{"GET", "/v2/app/blobs/" + big, "bytes=0-1,2-3", nil},
		{"HEAD", "/v2/app/manifests/v1", "", []string{"resolve app:v1"}},
		{"GET", "/v2/app/manifests/v1", "", []string{"resolve app:v1", "open manifest app@" + man}},
		{"HEAD", "/v2/app/manifests/" + man, "", []string{"stat manifest app@" + man}},
		{"GET", "/v2/app/manifests/" + man, "", []string{"open manifest app@" + man}},
		{"HEAD", "/v2/app/blobs/" + big, "", []string{"stat blob app@" + big}},
		{"GET", "/v2/app/blobs/" + big, "", []string{"open blob app@" + big}},
		{"GET", "/v2/app/blobs/" + big, "bytes=5-6", []string{"open blob app@" + big + " 5+2"}},
		{"GET", "/v2/app/blobs/" + big, "bytes=5-", []string{"open blob app@" + big + " 5+"}},
	} {
		w.faulty.Forget()
		var h []string
		if c.rng != "" {
			h = []string{"Range", c.rng}
		}
		w.do(t, c.method, c.path, h...)
		if d := cmp.Diff(c.want, w.faulty.Calls()); d != "" && len(c.want)+w.faulty.Count() > 0 {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.rng, d)
		}
	}
}

// TestUpstreamErrors holds the status of every class, on every endpoint, and that a continued download is cut, not refused.
func TestUpstreamErrors(t *testing.T) {
	for class, want := range map[registry.Class]int{
		registry.Denied: 403, registry.Throttled: 503, registry.Unavailable: 503, registry.Corrupt: 503, registry.Internal: 500, registry.NotFound: 404,
	} {
		for _, after := range []bool{false, true} { // it failed; it failed after taking effect
			t.Run(fmt.Sprint(class, after), func(t *testing.T) {
				w := newWorld(t, nil)
				hook := registrytest.FailNth("", 0, &registry.Error{Class: class, Code: "TOOMANYREQUESTS", RetryAfter: 3 * time.Second, Err: errors.New("upstream says no to token s3cret")})
				if w.faulty.Before = hook; after {
					w.faulty.Before, w.faulty.After = nil, hook
				}
				big := "/v2/app/blobs/" + w.big.Desc.Digest.String()
				for _, path := range []string{"/v2/app/manifests/v1", "/v2/app/manifests/" + w.image.Desc.Digest.String(), big, "/v2/app/tags/list"} {
					for _, method := range []string{"GET", "HEAD"} {
						a := w.do(t, method, path)
						if a.status != want {
							t.Errorf("%s %s: %d, want %d", method, path, a.status, want)
						}
						if retry := a.header.Get("Retry-After"); (retry == "3") != (want == 503) {
							t.Errorf("%s %s: Retry-After %q", method, path, retry)
						}
						if class == registry.Internal && strings.Contains(string(a.body), "s3cret") {
							t.Errorf("an internal error reached the client: %s", a.body)
						}
					}
				}
				if a := w.do(t, "GET", big, "Range", "bytes=0-"); a.status != want {
					t.Errorf("first range: %d, want %d", a.status, want)
				}
				a := w.do(t, "GET", big, "Range", "bytes=1000-")
				if want < 500 && a.status != want {
					t.Errorf("continuation: %d %v, want %d", a.status, a.err, want)
				}
				if want >= 500 && (a.status != 0 || !errors.Is(a.err, io.EOF)) {
					t.Errorf("continuation: status %d, %v; want a closed connection", a.status, a.err)
				}
			})
		}
	}
}

// TestBadBodies holds that a body which breaks, ends early or is wrong never becomes a complete response, and that after the
// headers nothing but content is written.
func TestBadBodies(t *testing.T) {
	for name, fault := range map[string]registrytest.Fault{
		"breaks at once": {Err: errors.New("broken")},
		"breaks":         {At: 900, Err: errors.New("broken")},
		"ends early":     {At: 900, Truncate: true},
		"is wrong":       {At: 900, Corrupt: true},
		"wrong at 0":     {At: 0, Corrupt: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.faulty.Body = func(registrytest.Call) *registrytest.Fault { f := fault; f.At = min(f.At, 200); return &f }
			if a := w.do(t, "GET", "/v2/app/manifests/v1"); a.status < 500 {
				t.Errorf("manifest: %d %s", a.status, a.body)
			}
			if a := w.do(t, "GET", "/v2/app/blobs/"+w.small.Desc.Digest.String()); a.status < 500 {
				t.Errorf("small blob: %d", a.status)
			}
			w.faulty.Body = func(registrytest.Call) *registrytest.Fault { f := fault; return &f }
			for _, h := range [][]string{nil, {"Range", "bytes=0-"}, {"Range", "bytes=100-"}} {
				if fault.Corrupt && len(h) > 0 && h[1] != "bytes=0-" {
					continue // a part says nothing of its digest; storage verifies it
				}
				a := w.do(t, "GET", "/v2/app/blobs/"+w.big.Desc.Digest.String(), h...)
				if a.status != 200 && a.status != 206 || !errors.Is(a.err, io.ErrUnexpectedEOF) {
					t.Errorf("%v: status %d, %d bytes, %v; want an early end", h, a.status, len(a.body), a.err)
				}
				if !fault.Corrupt && !bytes.Contains(w.big.Body, a.body) {
					t.Errorf("%v: %d bytes that are not all content", h, len(a.body))
				}
			}
		})
	}
}

// TestOversizedManifest holds the limit on what is read into memory.
func TestOversizedManifest(t *testing.T) {
	o := serve.Options{Mirrors: []serve.Mirror{{Reader: huge{}}}}
	rec := httptest.NewRecorder()
	serve.New(o).ServeHTTP(rec, httptest.NewRequest("GET", "/v2/app/manifests/"+digest.FromString("x").String(), nil))
	if rec.Code != 503 {
		t.Errorf("%d, want 503", rec.Code)
	}
}

type huge struct{ registry.Reader }

func (huge) Open(context.Context, registry.Object, registry.Range) (*registry.Content, error) {
	return &registry.Content{Descriptor: registry.Descriptor{Size: registry.MaxManifestSize + 1}, ReadCloser: unreadable{}}, nil
}

type unreadable struct{ io.Closer }

func (unreadable) Read([]byte) (int, error) { panic("read although it is too large") }
func (unreadable) Close() error             { return nil }

// hanging never answers before its context ends, and notes when it was released.
type hanging struct{ registry.Lister }

func (hanging) Resolve(ctx context.Context, _, _ string) (registry.Descriptor, error) {
	<-ctx.Done()
	return registry.Descriptor{}, fmt.Errorf("resolve: %w", ctx.Err())
}

func (h hanging) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	return h.Resolve(ctx, o.Repo, "")
}

func (h hanging) Open(ctx context.Context, o registry.Object, _ registry.Range) (*registry.Content, error) {
	_, err := h.Resolve(ctx, o.Repo, "")
	return nil, err
}

// TestNoAnswer holds how long a client waits for a 503, by whether it has a next host.
func TestNoAnswer(t *testing.T) {
	blob := "/v2/app/blobs/" + digest.FromString("x").String()
	for _, c := range []struct {
		method, path, rng string
		after             time.Duration
		status            int
	}{
		{"HEAD", "/v2/app/manifests/v1", "", 10 * time.Second, 503},
		{"HEAD", "/v2/app/manifests/v1?ns=" + source, "", 2500 * time.Millisecond, 503},
		{"GET", blob, "", 10 * time.Second, 503},
		{"HEAD", blob + "?ns=" + source, "", 2500 * time.Millisecond, 503},
		{"GET", blob, "bytes=0-", 2500 * time.Millisecond, 503},
		{"GET", blob, "bytes=0-1", 2500 * time.Millisecond, 503},
		{"GET", blob + "?ns=" + source, "bytes=100-", 25 * time.Second, 0}, // cut: a continuation is never refused
	} {
		synctest.Test(t, func(t *testing.T) {
			h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{source}, Reader: hanging{}}}})
			r := httptest.NewRequest(c.method, c.path, nil)
			if c.rng != "" {
				r.Header.Set("Range", c.rng)
			}
			rec := httptest.NewRecorder()
			begun := time.Now()
			cut := aborts(func() { h.ServeHTTP(rec, r) })
			if got := time.Since(begun); got != c.after || cut != (c.status == 0) || !cut && rec.Code != c.status {
				t.Errorf("%s %s %s: %d (cut %t) after %v; want %d after %v", c.method, c.path, c.rng, rec.Code, cut, got, c.status, c.after)
			}
		})
	}
}

// A client waits once, whatever is asked on its behalf: who it is, where the blob is, and for the blob itself.
func TestNoAnswerInAll(t *testing.T) {
	slow := &authFunc{func(r *http.Request, _ serve.Access) error {
		select {
		case <-time.After(2 * time.Second):
			return nil
		case <-r.Context().Done():
			return r.Context().Err()
		}
	}}
	nowhere := locator(func(ctx context.Context, _ registry.Object) (string, time.Time, error) {
		<-ctx.Done()
		return "", time.Time{}, ctx.Err()
	})
	for path, after := range map[string]time.Duration{
		"/v2/app/manifests/v1?ns=" + source:                                 2500 * time.Millisecond,
		"/v2/app/blobs/" + string(digest.FromString("x")) + "?ns=" + source: 2500 * time.Millisecond,
		"/v2/app/blobs/" + string(digest.FromString("x")):                   10 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{source}, Reader: hanging{}, Auth: slow, Locator: nowhere}}})
			r := httptest.NewRequest("GET", path, nil)
			r.RemoteAddr = "127.0.0.1:1000"
			rec := httptest.NewRecorder()
			begun := time.Now()
			if h.ServeHTTP(rec, r); rec.Code != 503 || time.Since(begun) != after {
				t.Errorf("%s: %d after %v, want 503 after %v", path, rec.Code, time.Since(begun), after)
			}
		})
	}
}

func aborts(f func()) (aborted bool) {
	defer func() {
		if v := recover(); v != nil {
			if v != http.ErrAbortHandler {
				panic(v)
			}
			aborted = true
		}
	}()
	f()
	return false
}

// TestBodyOutlivesHeaderTimeout holds that only the wait for the answer is bounded, not the body, and that headers leave
// before the body has anything to give.
func TestBodyOutlivesHeaderTimeout(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(o *serve.Options) { o.HeaderTimeout, o.DirectTimeout = 500*time.Millisecond, 500*time.Millisecond })
	w.faulty.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 0, Stall: release} }
	req, _ := http.NewRequestWithContext(t.Context(), "GET", w.URL+"/v2/app/blobs/"+w.big.Desc.Digest.String()+"?ns="+source, nil)
	resp, err := w.Client().Do(req) // returns when the headers are there: the body stalls
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	timer := time.AfterFunc(700*time.Millisecond, func() { close(release) })
	defer timer.Stop()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(body, w.big.Body) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// TestShed holds that what begins is refused when all slots are taken, and what continues is not.
func TestShed(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(o *serve.Options) { o.MaxConcurrent = 1 })
	w.faulty.Body = func(c registrytest.Call) *registrytest.Fault {
		if c.N == 1 {
			return &registrytest.Fault{Stall: release}
		}
		return nil
	}
	big := "/v2/app/blobs/" + w.big.Desc.Digest.String()
	req, _ := http.NewRequestWithContext(t.Context(), "GET", w.URL+big, nil)
	resp, err := w.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, c := range []struct {
		path, rng string
		status    int
	}{
		{"/v2/app/manifests/v1", "", 503}, {big, "", 503}, {big, "bytes=0-", 503}, {"/v2/app/tags/list", "", 503},
		{big, "bytes=-5", 503}, // a suffix is how lazy loaders begin
		{big, "bytes=5-", 206}, {"/v2/", "", 200},
	} {
		var h []string
		if c.rng != "" {
			h = []string{"Range", c.rng}
		}
		a := w.do(t, "GET", c.path, h...)
		if a.status != c.status || a.status == 503 && a.header.Get("Retry-After") != "1" {
			t.Errorf("%s %s: %d, want %d", c.path, c.rng, a.status, c.status)
		}
	}
	close(release)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	for range 100 { // the slot is given back shortly after the last byte
		if a := w.do(t, "GET", "/v2/app/manifests/v1"); a.status == 200 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("the slot was never given back")
}

// TestClientLeaves holds that a client that leaves ends its own request and is not counted as a failure of ours.
func TestClientLeaves(t *testing.T) {
	var h *serve.Handler
	w := newWorld(t, func(o *serve.Options) { h = serve.New(*o) })
	srv := httptest.NewServer(h)
	stall := make(chan struct{})
	defer close(stall)
	w.faulty.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 1000, Stall: stall} }
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v2/app/blobs/"+w.big.Desc.Digest.String(), nil)
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	srv.Close() // waits for the handler, which stalls unless it notices
	if got := count(t, h, "ecr_mirror_requests_total", "class=client_left endpoint=blob mirror="+source+" tier="); got != 1 {
		t.Errorf("%v requests whose client left, want 1", got)
	}
}

// count returns a counter's value; labels are "name=value" in the order of their names.
func count(t *testing.T, h *serve.Handler, name, labels string) float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(h.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var got []string
			for _, l := range m.Label {
				got = append(got, l.GetName()+"="+l.GetValue())
			}
			if f.GetName() == name && strings.Join(got, " ") == labels {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}
