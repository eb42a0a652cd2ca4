package replicate_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// ring is registries with a mirror from each to some others, all in one process.
type ring struct {
	q  *replicate.Queue
	at map[string]*mem.Registry
	to map[string]*registrytest.Faulty
	c  replicate.Copier
}

func newRing(q *replicate.Queue, names ...string) *ring {
	r := &ring{q: q, at: map[string]*mem.Registry{}, to: map[string]*registrytest.Faulty{}}
	for _, n := range names {
		r.at[n] = mem.New()
		r.to[n] = registrytest.NewFaulty(r.at[n])
	}
	return r
}

func (r *ring) image(from, to, repo string, rename func(string) string) replicate.Image {
	return replicate.Image{Source: r.at[from], Tags: r.at[from], Repo: repo, Destination: replicate.Destination{Name: to,
		Writer: r.to[to], Reader: r.to[to], Repo: rename, Trail: &replicate.Trail{Queue: r.q, Source: from, Destination: to, Mutual: func(string, string) bool { return true }}}}
}

// tag runs the tag's job from one registry to another.
func (r *ring) tag(t testing.TB, from, to, tag string) error {
	t.Helper()
	_, err := r.c.Tag(t.Context(), r.image(from, to, "app", nil), tag)
	if err != nil && !errors.Is(err, replicate.ErrEcho) && !errors.Is(err, replicate.ErrGone) {
		t.Fatal(err)
	}
	return err
}

// What a mirror wrote does not go back, even when its source has moved on meanwhile; what others push there does.
func TestEcho(t *testing.T) {
	r := newRing(newQueue(t), "a", "b")
	x, y, z := registrytest.Image(1, 10), registrytest.Image(2, 10), registrytest.Image(3, 10)
	pushed := func(at string, n registrytest.Node) { t.Helper(); registrytest.Push(t, r.at[at], "app", "v1", n) }
	both := func(n registrytest.Node) {
		t.Helper()
		names(t, r.at["a"], "app", "v1", n)
		names(t, r.at["b"], "app", "v1", n)
	}

	pushed("a", x)
	must(t, r.tag(t, "a", "b", "v1"))
	pushed("a", y) // before the event of x at b arrives
	if err := r.tag(t, "b", "a", "v1"); !errors.Is(err, replicate.ErrEcho) {
		t.Errorf("x came back: %v", err)
	}
	names(t, r.at["a"], "app", "v1", y)
	must(t, r.tag(t, "a", "b", "v1"))
	both(y)

	pushed("b", z)
	must(t, r.tag(t, "b", "a", "v1"))
	both(z)
	if err := r.tag(t, "a", "b", "v1"); err != nil { // they agree
		t.Error(err)
	}
	// Rolled back where it was pushed, and where it came to.
	pushed("a", x)
	must(t, r.tag(t, "a", "b", "v1"))
	both(x)
	pushed("b", z)
	must(t, r.tag(t, "b", "a", "v1"))
	both(z)
	pushed("a", x)
	must(t, r.tag(t, "a", "b", "v1"))
	pushed("a", z) // what once came from b
	must(t, r.tag(t, "a", "b", "v1"))
	both(z)

	// Deleted at a, it is not brought back from b.
	must(t, r.at["a"].DeleteManifest(t.Context(), "app", x.Desc.Digest))
	if _, err := r.c.Content(t.Context(), r.image("b", "a", "app", nil), x.Desc.Digest); !errors.Is(err, replicate.ErrEcho) {
		t.Errorf("x is brought back: %v", err)
	}
}

// Chained mirrors pass on what they got, and a chain that closes ends, whatever names the repositories have on the way.
func TestChainEnds(t *testing.T) {
	r := newRing(newQueue(t), "a", "b", "c")
	img := registrytest.Index(registrytest.Image(1, 10), registrytest.Image(2, 10))
	registrytest.Push(t, r.at["a"], "app", "v1", img)
	under := func(prefix string) func(string) string { return func(repo string) string { return prefix + repo } }
	step := func(from, to, repo string) error {
		im := r.image(from, to, repo, under(to+"/"))
		_, err := r.c.Tag(t.Context(), im, "v1")
		if err == nil || errors.Is(err, replicate.ErrEcho) {
			for _, n := range append(img.Children, img) { // each manifest has an event of its own
				_, cerr := r.c.Content(t.Context(), im, n.Desc.Digest)
				if errors.Is(cerr, replicate.ErrEcho) != errors.Is(err, replicate.ErrEcho) {
					t.Errorf("from %s to %s: content: %v, tag: %v", from, to, cerr, err)
				}
			}
		}
		return err
	}
	must(t, step("a", "b", "app"))
	must(t, step("b", "c", "b/app"))
	names(t, r.at["c"], "c/b/app", "v1", img)
	for _, to := range []string{"a", "b"} {
		if err := step("c", to, "c/b/app"); !errors.Is(err, replicate.ErrEcho) {
			t.Errorf("from c to %s: %v", to, err)
		}
	}
	if n := r.to["a"].Count("put-manifest"); n != 0 {
		t.Errorf("%d manifests put to a", n)
	}
}

// What is not copied because it came from there is not found missing by a sweep either.
func TestSweepKnowsEchoes(t *testing.T) {
	r := newRing(newQueue(t), "a", "b")
	img := registrytest.Image(1, 10)
	registrytest.Push(t, r.at["a"], "app", "v1", img)
	must(t, r.tag(t, "a", "b", "v1"))
	must(t, r.at["a"].DeleteManifest(t.Context(), "app", img.Desc.Digest))
	s := replicate.Sweep{Mirror: "m", Destination: "d", Source: r.at["b"], Target: r.at["a"], Queue: r.q,
		Trail: &replicate.Trail{Queue: r.q, Source: "b", Destination: "a"}}
	p, err := s.Plan(t.Context(), time.Time{}, nil)
	must(t, err)
	if len(p.Differences) != 0 {
		t.Errorf("differences: %+v", p.Differences)
	}
	s.Trail = nil
	if p, err = s.Plan(t.Context(), time.Time{}, nil); err != nil || len(p.Differences) != 1 {
		t.Errorf("without a trail: %+v, %v", p, err)
	}
}

// What was written is known before it is, and after a restart: the process may be killed between the write and its answer.
func TestTrailIsDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	for _, applied := range []bool{false, true} {
		r := newRing(openQueue(t, path), "a", "b")
		x, y := registrytest.Image(1, 10), registrytest.Image(2, 10)
		registrytest.Push(t, r.at["a"], "app", "v1", x)
		hook := registrytest.FailNth("put-manifest", 0, errors.New("killed"))
		if r.to["b"].Before = hook; applied {
			r.to["b"].Before, r.to["b"].After = nil, hook
		}
		if _, err := r.c.Tag(t.Context(), r.image("a", "b", "app", nil), "v1"); err == nil {
			t.Fatal("not killed")
		}
		r.to["b"].Before, r.to["b"].After = nil, nil
		must(t, r.q.Close())
		r.q = openQueue(t, path)
		registrytest.Push(t, r.at["a"], "app", "v1", y)
		if err := r.tag(t, "b", "a", "v1"); applied != errors.Is(err, replicate.ErrEcho) {
			t.Errorf("applied %v: %v", applied, err)
		}
		must(t, r.tag(t, "a", "b", "v1"))
		names(t, r.at["b"], "app", "v1", y)
		names(t, r.at["a"], "app", "v1", y)
		must(t, r.q.Close())
	}
}

// The oldest trails give way.
func TestTrailsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		r := newRing(openQueue(t, path), "a", "b")
		tags := make(map[string]digest.Digest)
		copied := func(from, to int) {
			r.q.MaxTrails = 50
			for i := range to - from {
				n, tag := registrytest.Image(uint64(from+i), 10), fmt.Sprint("v", from+i)
				registrytest.Push(t, r.at["a"], "app", tag, n)
				must(t, r.tag(t, "a", "b", tag))
				tags[tag] = n.Desc.Digest
				time.Sleep(time.Second)
			}
		}
		check := func(newest int) {
			t.Helper()
			known := 0
			for tag, d := range tags {
				echo, err := r.image("b", "a", "app", nil).Destination.Trail.Echo("app", "app", tag, d, "")
				if must(t, err); echo {
					known++
				}
			}
			for i := range 20 { // each has a trail of its own and one of its manifest
				tag := fmt.Sprint("v", newest-i)
				if echo, err := r.image("b", "a", "app", nil).Destination.Trail.Echo("app", "app", tag, tags[tag], ""); err != nil || !echo {
					t.Errorf("%s is forgotten: %v", tag, err)
				}
			}
			if known > 26 {
				t.Errorf("%d tags are known", known)
			}
		}
		copied(0, 100)
		check(99)
		must(t, r.q.Close())
		r.q = openQueue(t, path)
		copied(100, 130)
		check(129)
		must(t, r.q.Close())
	})
}

// Whatever is pushed to two mutual mirrors in whatever order, with jobs in between that run, fail, or overtake each other: when
// the pushes end and every job ran, both sides agree, and it stays so. Without failures they agree on what was pushed last at
// one of them; after some there is no telling what was last.
func TestMutualMirrorsAgree(t *testing.T) {
	q := newQueue(t)
	n := 0
	images := []registrytest.Node{registrytest.Image(1, 10), registrytest.Image(2, 10), registrytest.Image(3, 10)}
	rapid.Check(t, func(rt *rapid.T) {
		n++
		a, b := fmt.Sprint("a", n), fmt.Sprint("b", n)
		r := newRing(q, a, b)
		clean := true
		last := map[string]digest.Digest{}
		side := rapid.SampledFrom([]string{a, b})
		other := map[string]string{a: b, b: a}
		for i := range rapid.IntRange(1, 12).Draw(rt, "steps") {
			at := side.Draw(rt, "at")
			if i == 0 || rapid.Bool().Draw(rt, "push") {
				n := images[rapid.IntRange(0, len(images)-1).Draw(rt, "image")]
				registrytest.Push(t, r.at[at], "app", "v1", n)
				last[at] = n.Desc.Digest
				continue
			}
			fail := rapid.SampledFrom([]string{"", "", "", "before", "after", "overtaken"}).Draw(rt, "fail")
			clean = clean && fail == ""
			to := r.to[other[at]]
			done := false
			hook := func(c registrytest.Call) error {
				if c.Op != "put-manifest" || c.Tag == "" || done {
					return nil
				}
				if done = true; fail == "overtaken" { // the other mirror runs in the middle of this
					_ = r.tag(t, other[at], at, "v1")
					return nil
				}
				return registry.Errorf(registry.Unavailable, "cut")
			}
			switch fail {
			case "before", "overtaken":
				to.Before = hook
			case "after":
				to.After = hook
			}
			_, err := r.c.Tag(t.Context(), r.image(at, other[at], "app", nil), "v1")
			to.Before, to.After = nil, nil
			if err != nil && registry.ClassOf(err) != registry.Unavailable && registry.ClassOf(err) != registry.NotFound && !errors.Is(err, replicate.ErrEcho) {
				rt.Fatal(err)
			}
		}
		for range 4 {
			_ = r.tag(t, a, b, "v1")
			_ = r.tag(t, b, a, "v1")
		}
		inA, errA := r.at[a].Resolve(t.Context(), "app", "v1")
		inB, errB := r.at[b].Resolve(t.Context(), "app", "v1")
		if errA != nil || errB != nil || inA.Digest != inB.Digest {
			rt.Fatalf("a has %v (%v), b %v (%v)", inA.Digest, errA, inB.Digest, errB)
		}
		if clean && inA.Digest != last[a] && inA.Digest != last[b] {
			rt.Errorf("both have %v, last pushed were %v", inA.Digest, last)
		}
		before := r.to[a].Count("put-manifest") + r.to[b].Count("put-manifest")
		_ = r.tag(t, a, b, "v1")
		_ = r.tag(t, b, a, "v1")
		if after := r.to[a].Count("put-manifest") + r.to[b].Count("put-manifest"); after != before {
			rt.Errorf("%d more writes", after-before)
		}
	})
}
