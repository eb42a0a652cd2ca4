package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// lists is a Lister of what it holds, then of its error.
type lists struct {
	tags      []string
	referrers []registry.Descriptor
	err       error
}

func (l lists) Tags(context.Context, string) iter.Seq2[string, error] { return seq(l.tags, l.err) }

func (l lists) Referrers(context.Context, string, digest.Digest, string) iter.Seq2[registry.Descriptor, error] {
	return seq(l.referrers, l.err)
}

func seq[T any](items []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
		if err != nil {
			yield(*new(T), err)
		}
	}
}

func withLister(l registry.Lister) func(*serve.Options) {
	return func(o *serve.Options) { o.Mirrors[0].Lister = l }
}

// TestPaging follows Link headers through a long list that comes in no order and with repetitions.
func TestPaging(t *testing.T) {
	var all []string
	for i := range 3 * wire.MaxPage / 2 {
		all = append(all, fmt.Sprintf("v%05d", i))
	}
	shuffled := slices.Concat(all, all, all, all)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	w := newWorld(t, withLister(lists{tags: shuffled}))
	for query, pages := range map[string]int{"": 2, "?n=7000": 3, "?n=99999999": 2, "?n=7000&ns=" + source: 3, "?n=15000": 2} {
		var got []string
		path, seen := "/v2/"+source+"/app/tags/list"+query, 0
		for path != "" {
			a := w.do(t, "GET", path)
			var body struct {
				Name string
				Tags []string
			}
			if err := json.Unmarshal(a.body, &body); a.status != 200 || err != nil || body.Name != source+"/app" {
				t.Fatalf("%s: %d %v %.100s", path, a.status, err, a.body)
			}
			got = append(got, body.Tags...)
			seen++
			base, _ := url.Parse(w.URL + path)
			next, err := wire.Next(base, a.header)
			if err != nil {
				t.Fatal(err)
			}
			if path = ""; next != nil {
				path = next.RequestURI()
			}
		}
		if d := cmp.Diff(all, got); d != "" || seen != pages {
			t.Errorf("%q: %d pages, want %d; %.300s", query, seen, pages, d)
		}
	}
}

// TestBrokenList holds that a listing that fails half way is no shorter listing.
func TestBrokenList(t *testing.T) {
	w := newWorld(t, withLister(lists{tags: []string{"v1"}, referrers: []registry.Descriptor{{Digest: digest.FromString("x")}},
		err: registry.Errorf(registry.Unavailable, "page 2: gone")}))
	for _, path := range []string{"/v2/app/tags/list", "/v2/app/referrers/" + digest.FromString("s").String()} {
		if a := w.do(t, "GET", path); a.status != 503 || a.code(t) != "UNAVAILABLE" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// gatedLists is a Lister that lists nothing once it is opened.
type gatedLists struct {
	lists
	open chan struct{}
	busy atomic.Int32
}

func (g *gatedLists) Tags(ctx context.Context, _ string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		g.busy.Add(1)
		defer g.busy.Add(-1)
		select {
		case <-g.open:
		case <-ctx.Done():
			yield("", ctx.Err())
		}
	}
}

// A listing is in memory as a whole, so not every client gets to make one at once: the others wait, as for an answer.
func TestListsAtOnce(t *testing.T) {
	for want, opened := range map[int]bool{200: true, 503: false} {
		synctest.Test(t, func(t *testing.T) {
			l := &gatedLists{open: make(chan struct{})}
			h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{source}, Reader: hanging{}, Lister: l}}})
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					rec := httptest.NewRecorder()
					if h.ServeHTTP(rec, httptest.NewRequest("GET", "/v2/app/tags/list", nil)); rec.Code != want {
						t.Errorf("%d, want %d", rec.Code, want)
					}
				})
			}
			synctest.Wait()
			if n := l.busy.Load(); n != 16 {
				t.Errorf("%d at once, want 16", n)
			}
			if opened {
				close(l.open)
			}
			wg.Wait()
		})
	}
}

func TestReferrersBounds(t *testing.T) {
	path := "/v2/app/referrers/" + digest.FromString("s").String()
	many := make([]registry.Descriptor, wire.MaxPage+1)
	for i := range many {
		many[i].Digest = digest.FromString(fmt.Sprint(i))
	}
	if a := newWorld(t, withLister(lists{referrers: many})).do(t, "GET", path); a.status != 503 {
		t.Errorf("too many: %d", a.status)
	}
	twice := []registry.Descriptor{{Digest: many[0].Digest, ArtifactType: "a/b"}, {Digest: many[0].Digest, ArtifactType: "a/b"}, {Digest: many[1].Digest, ArtifactType: "c/d"}}
	a := newWorld(t, withLister(lists{referrers: twice})).do(t, "GET", path+"?artifactType=a/b")
	if n := strings.Count(string(a.body), `"digest"`); a.status != 200 || n != 1 {
		t.Errorf("%d referrers in %s, want one: a Lister that neither filters nor merges", n, a.body)
	}
	if a := newWorld(t, withLister(nil)).do(t, "GET", path); a.status != 405 {
		t.Errorf("no lister: %d", a.status)
	}
	unknown := registry.Errorf(registry.NotFound, "no such subject")
	if a := newWorld(t, withLister(lists{err: unknown})).do(t, "GET", path); a.status != 200 {
		t.Errorf("unknown subject: %d", a.status)
	}
}

// stale answers tags from memory, as a mirror does during an outage.
type stale struct{ registry.Reader }

func (s stale) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	tr := registry.TraceOf(ctx)
	tr.SetTier("local")
	tr.SetStale(90*time.Second + time.Millisecond)
	return s.Reader.Resolve(ctx, repo, tag)
}

// TestTrace holds what is said of a stale answer, what is logged, and what never is.
func TestTrace(t *testing.T) {
	var h *serve.Handler
	w := newWorld(t, func(o *serve.Options) {
		o.Mirrors[0].Reader = stale{o.Mirrors[0].Reader}
		withAuth(&authFunc{func(*http.Request, serve.Access) error { return nil }})(o)
		h = serve.New(*o)
	})
	w.Config.Handler = h
	a := w.do(t, "GET", "/v2/app/manifests/v1?ns="+source+"&token=s3cret", "Authorization", "Basic czNjcmV0OnMzY3JldA==")
	if got := a.header.Get("X-Ecr-Mirror-Tag-Age"); got != "90" {
		t.Errorf("age %q, want 90", got)
	}
	w.do(t, "GET", "/v2/app/blobs/"+w.small.Desc.Digest.String())
	w.Close()
	log := w.log.String()
	for _, want := range []string{"method=GET endpoint=manifest repo=app object=v1 tier=local status=200 bytes=" + str(len(w.image.Body)), "endpoint=blob"} {
		if !strings.Contains(log, want) {
			t.Errorf("log %q lacks %q", log, want)
		}
	}
	if strings.Count(log, "\n") != 2 || strings.Contains(log, "s3cret") || strings.Contains(log, "czNj") {
		t.Errorf("log %q: one line per request, without secrets", log)
	}
	if got := count(t, h, "ecr_mirror_stale_answers_total", "mirror="+source); got != 1 {
		t.Errorf("%v stale answers, want 1", got)
	}
	if got := count(t, h, "ecr_mirror_requests_total", "class=ok endpoint=manifest mirror="+source+" tier=local"); got != 1 {
		t.Errorf("%v manifests from local, want 1", got)
	}
	if got := count(t, h, "ecr_mirror_served_bytes_total", "mirror="+source+" tier=local"); got != float64(len(w.image.Body)) {
		t.Errorf("%v bytes from local", got)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(h.Collectors()...)
	if n, err := testutil.GatherAndCount(reg, "ecr_mirror_request_first_byte_seconds"); n != 2 || err != nil {
		t.Errorf("times of %d kinds of answers, %v; want those of the manifest and of the blob", n, err)
	}
}

// authFunc is an Authenticator made of a function.
type authFunc struct {
	f func(r *http.Request, a serve.Access) error
}

func (a *authFunc) Authenticate(r *http.Request, access serve.Access) error { return a.f(r, access) }

// withAuth has all mirrors ask one Authenticator.
func withAuth(a serve.Authenticator) func(*serve.Options) {
	return func(o *serve.Options) {
		for i := range o.Mirrors {
			o.Mirrors[i].Auth = a
		}
	}
}

var errDown = errors.New("down")
