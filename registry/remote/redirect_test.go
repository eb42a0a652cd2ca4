package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// layers is a store that a fake registry redirects to. It honours URLs whose number is above valid.
type layers struct {
	srv *httptest.Server

	mu           sync.Mutex
	query        string // of the URLs that are given out
	given, valid int
	asked        int
	refusals     *sync.WaitGroup // a refusal waits for as many, unless it is nil
}

// redirectBlobs has f answer blobs with a URL of a new store that has body.
func redirectBlobs(t *testing.T, f *fake, body []byte) *layers {
	l := &layers{query: "X-Amz-Expires=3600"}
	l.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.asked++
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		refused, all := n <= l.valid, l.refusals
		l.mu.Unlock()
		if refused {
			if all != nil {
				all.Done()
				all.Wait()
			}
			http.Error(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}))
	t.Cleanup(l.srv.Close)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if isManifest(r) {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.given++
		http.Redirect(w, r, fmt.Sprintf("%s/%d?%s", l.srv.URL, l.given, l.query), http.StatusTemporaryRedirect)
		return true
	}
	return l
}

// expire has the store refuse the URLs given out so far.
func (l *layers) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.valid = l.given
}

// want compares how many URLs were given out and how often the store was asked, and forgets both.
func (l *layers) want(t *testing.T, given, asked int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.given-l.valid != given || l.asked != asked {
		t.Errorf("the registry gave %d URLs, the store was asked %d times; want %d and %d", l.given-l.valid, l.asked, given, asked)
	}
	l.asked = 0
}

func readRange(ctx context.Context, r registry.Reader, o registry.Object, rg registry.Range, body []byte) error {
	c, err := r.Open(ctx, o, rg)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err == nil && string(b) != string(body[rg.Offset:rg.Offset+rg.Length]) {
		err = errors.New("wrong bytes")
	}
	return err
}

// A blob in many ranges is one redirect, and one more when the URL is refused in the middle, however many ranges are refused.
func TestOneRedirect(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	l := redirectBlobs(t, f, body)
	r := f.open(t, remote.Options{})
	parallel := func() {
		var g sync.WaitGroup
		for i := range 10 {
			g.Go(func() {
				if err := readRange(t.Context(), r, o, registry.Range{Offset: int64(i) * 100, Length: 100}, body); err != nil {
					t.Errorf("range %d: %v", i, err)
				}
			})
		}
		g.Wait()
	}
	parallel()
	l.want(t, 1, 10)
	parallel()
	l.want(t, 1, 10)
	l.expire()
	l.refusals = new(sync.WaitGroup)
	l.refusals.Add(10)
	parallel()
	l.want(t, 1, 20)

	l.mu.Lock()
	l.refusals, l.query = nil, "X-Amz-Expires=3600&X-Amz-Date="+time.Now().Add(-50*time.Minute).UTC().Format("20060102T150405Z")
	l.mu.Unlock()
	l.expire()
	for range 3 { // a URL in the last fifth of its life is not used again
		if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); err != nil {
			t.Error(err)
		}
	}
	l.want(t, 3, 4)
}

// A store that cannot be reached any more is not asked again before the registry.
func TestRedirectToTheDead(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	l := redirectBlobs(t, f, body)
	r := f.open(t, remote.Options{})
	if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); err != nil {
		t.Fatal(err)
	}
	l.srv.Close()
	if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); !errors.Is(err, registry.Unavailable) {
		t.Errorf("store gone: %v, want unavailable", err)
	}
	redirectBlobs(t, f, body)
	if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); err != nil {
		t.Errorf("another store: %v", err)
	}
}

// A registry that sends bytes itself is asked once for each range, and nobody waits for another's answer once that is known.
func TestNoRedirect(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	r := f.open(t, remote.Options{})
	f.seen()
	if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Add(10)
	f.answer = func(http.ResponseWriter, *http.Request) bool { all.Done(); all.Wait(); return false }
	var g sync.WaitGroup
	for i := range 10 {
		g.Go(func() {
			if err := readRange(t.Context(), r, o, registry.Range{Offset: int64(i) * 100, Length: 100}, body); err != nil {
				t.Errorf("range %d: %v", i, err)
			}
		})
	}
	g.Wait()
	if n := len(f.seen()); n != 11 {
		t.Errorf("%d requests, want 11", n)
	}
}

// Who asks for all and leaves does not take the others along.
func TestAskerLeaves(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	l := redirectBlobs(t, f, body)
	asked := make(chan struct{}, 8)
	give := f.answer
	first := true
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		l.mu.Lock()
		stall := first
		first = false
		l.mu.Unlock()
		if asked <- struct{}{}; stall {
			<-r.Context().Done()
			return true
		}
		return give(w, r)
	}
	r := f.open(t, remote.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	var g sync.WaitGroup
	g.Go(func() {
		if err := readRange(ctx, r, o, registry.Range{Length: 10}, body); !errors.Is(err, registry.Unavailable) {
			t.Errorf("who left: %v", err)
		}
	})
	<-asked
	g.Go(func() {
		if err := readRange(t.Context(), r, o, registry.Range{Length: 10}, body); err != nil {
			t.Errorf("who stayed: %v", err)
		}
	})
	cancel()
	g.Wait()
	l.want(t, 1, 1)
}

// A presigned URL is used as it is, or its signature would not hold.
func TestRedirectKeepsItsQuery(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	var got url.Values
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r.URL.Query()
		w.Write(body)
	}))
	defer store.Close()
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, store.URL+"/x?a=%2F%20b&c=%2B", http.StatusFound)
		return true
	}
	if err := readRange(t.Context(), f.open(t, remote.Options{NS: "other.example"}), o, registry.Range{Length: 1000}, body); err != nil ||
		got.Get("a") != "/ b" || got.Get("c") != "+" || got.Has("ns") {
		t.Errorf("%v, query %v", err, got)
	}
}
