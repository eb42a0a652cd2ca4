package replicate_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// signed is an index of two images, with what is about it and them at the source: referrers, one with a referrer of its own,
// and cosign's tags.
type signed struct {
	root, a, b         registrytest.Node
	sbom, sig, ofSBOM  registrytest.Node // about a, root, and sbom
	cosignRoot, cosign registrytest.Node // tagged as signature of root, and as SBOM of b
}

func pushSigned(t *testing.T, w registry.Writer, repo, tag string) signed {
	s := signed{a: registrytest.Image(1, 10), b: registrytest.Image(2, 20), cosignRoot: registrytest.Image(3, 30), cosign: registrytest.Image(4, 40)}
	s.root = registrytest.Index(s.a, s.b)
	s.sbom = registrytest.Referrer(s.a.Desc, "application/sbom", []byte("sbom"))
	s.ofSBOM = registrytest.Referrer(s.sbom.Desc, "application/signature", []byte("of sbom"))
	s.sig = registrytest.Referrer(s.root.Desc, "application/signature", []byte("of root"))
	registrytest.Push(t, w, repo, tag, s.root)
	for _, n := range []registrytest.Node{s.sbom, s.ofSBOM, s.sig} {
		registrytest.Push(t, w, repo, "", n)
	}
	registrytest.Push(t, w, repo, cosignTag(s.root, ".sig"), s.cosignRoot)
	registrytest.Push(t, w, repo, cosignTag(s.b, ".sbom"), s.cosign)
	return s
}

func cosignTag(n registrytest.Node, suffix string) string {
	return "sha256-" + n.Desc.Digest.Encoded() + suffix
}

func (s signed) arrived(t *testing.T, p places, repo string) {
	t.Helper()
	for _, n := range []registrytest.Node{s.root, s.sbom, s.ofSBOM, s.sig} {
		has(t, p.dst, repo, n)
	}
	names(t, p.dst, repo, cosignTag(s.root, ".sig"), s.cosignRoot)
	names(t, p.dst, repo, cosignTag(s.b, ".sbom"), s.cosign)
}

func TestWhatIsAboutAnImageGoesWithIt(t *testing.T) {
	p := newPlaces()
	s := pushSigned(t, p.src, "app", "v1")
	im := p.image("app")
	im.Lister = p.from
	var c replicate.Copier
	res, err := c.Tag(t.Context(), im, "v1")
	if must(t, err); res.Refused != nil || res.Found || res.Digest != s.root.Desc.Digest {
		t.Errorf("result %+v", res)
	}
	s.arrived(t, p, "app")
	names(t, p.dst, "app", "v1", s.root)
	var order []string // of what was put last
	for _, call := range p.to.Calls() {
		for name, n := range map[string]registrytest.Node{"image": s.root, "sbom": s.sbom, "of sbom": s.ofSBOM} {
			if strings.HasPrefix(call, "put-manifest") && strings.HasSuffix(call, n.Desc.Digest.String()) {
				order = append(order, name)
			}
		}
	}
	if diff := cmp.Diff([]string{"image", "sbom", "of sbom"}, order); diff != "" {
		t.Errorf("order of manifests (-want +got):\n%s", diff)
	}

	// An image that was settled is not asked about again; one that somebody else brought is.
	im.Settled = func(digest.Digest) bool { return true }
	p.from.Forget()
	p.to.Forget()
	if _, err := c.Tag(t.Context(), im, "v1"); err != nil || p.from.Count()+p.to.Count() != 2 {
		t.Errorf("settled: %v, %d calls, want 2", err, p.from.Count()+p.to.Count())
	}
	fresh := registrytest.Referrer(s.root.Desc, "application/signature", []byte("later"))
	registrytest.Push(t, p.src, "app", "", fresh)
	im.Settled = nil
	res, err = c.Content(t.Context(), im, s.root.Desc.Digest)
	if must(t, err); !res.Found {
		t.Errorf("result %+v", res)
	}
	has(t, p.dst, "app", fresh)
}

// What a registry refuses does not fail the image; what it cannot do just now has the copy tried again.
func TestWhatIsAboutAnImageFails(t *testing.T) {
	for _, tt := range []struct {
		class   registry.Class
		refused bool
	}{{registry.Invalid, true}, {registry.Denied, true}, {registry.Conflict, true}, {registry.Unavailable, false}, {registry.Throttled, false}} {
		for name, when := range map[string]func(*registrytest.Faulty, func(registrytest.Call) error){
			"failed":              func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.Before = h },
			"failed after effect": func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.After = h },
		} {
			p := newPlaces()
			s := pushSigned(t, p.src, "app", "v1")
			im := p.image("app")
			im.Lister = p.from
			when(p.to, func(c registrytest.Call) error {
				if c.Op == "put-manifest" && (c.Object.Digest == s.sig.Desc.Digest || c.Object.Digest == s.cosign.Desc.Digest) {
					return registry.Errorf(tt.class, "no")
				}
				return nil
			})
			var c replicate.Copier
			res, err := c.Tag(t.Context(), im, "v1")
			if (err == nil) != tt.refused || (res.Refused != nil) != tt.refused || err != nil && registry.ClassOf(err) != tt.class {
				t.Errorf("%v, %s: %v, refused %v", tt.class, name, err, res.Refused)
			}
			names(t, p.dst, "app", "v1", s.root)
			p.to.Before, p.to.After = nil, nil
			res, err = c.Tag(t.Context(), im, "v1")
			if must(t, err); !res.Found || res.Refused != nil {
				t.Errorf("%v, %s: again: %+v", tt.class, name, res)
			}
			s.arrived(t, p, "app")
		}
	}
}

// Every call of either registry fails once, before and after its effect: the next attempt completes the image and what is
// about it, whichever call it was.
func TestFaultsOfWhatIsAboutAnImage(t *testing.T) {
	arms := map[string]func(*registrytest.Faulty, func(registrytest.Call) error){
		"failed":              func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.Before = h },
		"failed after effect": func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.After = h },
	}
	run := func(t *testing.T, arm func(*registrytest.Faulty, func(registrytest.Call) error), side func(places) *registrytest.Faulty, op string, nth int) bool {
		p := newPlaces()
		s := pushSigned(t, p.src, "app", "v1")
		im := p.image("app")
		im.Lister = p.from
		var hit atomic.Bool
		arm(side(p), func(c registrytest.Call) error {
			if c.Op == op && c.N == nth && hit.CompareAndSwap(false, true) {
				return registry.Errorf(registry.Unavailable, "fault")
			}
			return nil
		})
		c := replicate.Copier{Parallel: 2}
		_, err := c.Tag(t.Context(), im, "v1")
		if hit.Load() != (err != nil) || err != nil && registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("%s %d: hit %v: %v", op, nth, hit.Load(), err)
		}
		_, err = c.Tag(t.Context(), im, "v1")
		must(t, err)
		s.arrived(t, p, "app")
		names(t, p.dst, "app", "v1", s.root)
		return hit.Load()
	}
	for name, arm := range arms {
		t.Run(name, func(t *testing.T) {
			from, to := func(p places) *registrytest.Faulty { return p.from }, func(p places) *registrytest.Faulty { return p.to }
			for _, tt := range []struct {
				side   func(places) *registrytest.Faulty
				op     string
				failed int // calls of it in turn
				after  int // those of them that surely have an effect: others run in any order
			}{
				{from, "resolve", 16, 3}, {from, "open", 12, 12}, {from, "referrers", 6, 6}, {to, "resolve", 4, 1},
				{to, "missing", 10, 6}, {to, "create", 1, 1}, {to, "put-blob", 10, 10}, {to, "put-manifest", 8, 8},
			} {
				hits, want := 0, tt.failed
				if name != "failed" {
					want = tt.after
				}
				for nth := 1; nth <= tt.failed; nth++ {
					if run(t, arm, tt.side, tt.op, nth) {
						hits++
					}
				}
				if hits < want {
					t.Errorf("%s: %d calls failed in turn, want at least %d", tt.op, hits, want)
				}
			}
		})
	}
}

// A source that cannot list referrers has its images copied all the same.
// An image that is at the destination and no longer at the source has nothing about it to bring, and nobody has to look at it.
func TestWhatIsAboutAnImageThatIsGone(t *testing.T) {
	p := newPlaces()
	img := registrytest.Image(1, 10)
	registrytest.Push(t, p.dst, "app", "", img)
	im := p.image("app")
	im.Lister = p.from
	var c replicate.Copier
	if res, err := c.Content(t.Context(), im, img.Desc.Digest); err != nil || !res.Found {
		t.Errorf("%+v %v, want found", res, err)
	}
}

func TestNoReferrersToList(t *testing.T) {
	p := newPlaces()
	s := pushSigned(t, p.src, "app", "v1")
	im := p.image("app")
	im.Lister = p.from
	p.from.Before = func(c registrytest.Call) error {
		if c.Op == "referrers" {
			return registry.Errorf(registry.Denied, "not allowed")
		}
		return nil
	}
	var c replicate.Copier
	res, err := c.Tag(t.Context(), im, "v1")
	if must(t, err); res.Refused == nil || !strings.Contains(res.Refused.Error(), "source: not allowed") {
		t.Errorf("result %+v", res)
	}
	names(t, p.dst, "app", cosignTag(s.b, ".sbom"), s.cosign)
}

// Where rules want images by their tags, what is about them is wanted with them: by its own event, if they are there.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, func(o *replicate.Options) {
			m := o.Mirrors["m"]
			m.Lister = m.Tags.(registry.Lister)
			o.Mirrors["m"] = m
		})
		s := pushSigned(t, r.src, "app", "v1")
		follow := func(j replicate.Job) replicate.Job { j.Follow = true; return j }
		early := []replicate.Job{follow(contentJob("app", s.sig.Desc.Digest)), follow(contentJob("app", s.a.Desc.Digest)),
			follow(tagJob("app", cosignTag(s.root, ".sig"), "", time.Time{})), follow(tagJob("app", "v1", "", time.Time{})), follow(contentJob("app", d1))}
		put(t, r.q, early...)
		r.settle(time.Minute)
		if n := r.to.Count("create", "put-manifest", "put-blob"); n != 0 {
			t.Errorf("%d writes for what is about no image that is there", n)
		}
		put(t, r.q, tagJob("app", "v1", "", time.Time{}))
		r.settle(time.Minute)
		s.arrived(t, r.places, "app")

		late := registrytest.Referrer(s.root.Desc, "application/signature", []byte("late"))
		registrytest.Push(t, r.src, "app", "", late)
		registrytest.Push(t, r.src, "app", cosignTag(s.a, ".att"), s.cosign)
		stray := registrytest.Image(9, 90)
		registrytest.Push(t, r.src, "app", "", stray)
		put(t, r.q, follow(contentJob("app", late.Desc.Digest)), follow(tagJob("app", cosignTag(s.a, ".att"), "", time.Time{})), follow(contentJob("app", stray.Desc.Digest)))
		r.settle(time.Minute)
		has(t, r.dst, "app", late)
		names(t, r.dst, "app", cosignTag(s.a, ".att"), s.cosign)
		if _, err := r.dst.Stat(t.Context(), stray.Objects("app")[0]); err == nil {
			t.Error("an image that no rule wants was copied")
		}
		if got := gather(t, r.w)["ecr_mirror_job_results_total destination=d mirror=m result=unwanted"]; got != 5 {
			t.Errorf("%v jobs unwanted, want 5", got)
		}
	})
}

// A job for itself is not narrowed by one that only follows.
func TestFollowIsWeaker(t *testing.T) {
	q := newQueue(t)
	j := contentJob("app", d1)
	weak := j
	weak.Follow = true
	put(t, q, weak, j, weak)
	if got := lease(t, q); got.Follow {
		t.Error("a job that everybody wants only follows")
	}
	put(t, q, func() replicate.Job { w := weak; w.Digest = d2; return w }())
	if got := lease(t, q); !got.Follow {
		t.Error("a job that only follows does not")
	}
}

// Only a tag that is about an image can follow one.
func TestFollowOfAnOrdinaryTag(t *testing.T) {
	p := newPlaces()
	im := p.image("app")
	im.Follow = true
	var c replicate.Copier
	if _, err := c.Tag(t.Context(), im, "v1"); !errors.Is(err, replicate.ErrUnwanted) {
		t.Errorf("got %v", err)
	}
}

// Where rules want images by their tags, a sweep finds what is about those that are there, and nothing else.
func TestSweepFindsWhatIsAboutImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		s := pushSigned(t, r.src, "app", "v1")
		registrytest.Push(t, r.src, "app", "dev", registrytest.Image(50, 10))
		unwanted := registrytest.Image(51, 10)
		registrytest.Push(t, r.src, "app", "", unwanted)
		registrytest.Push(t, r.src, "app", "", registrytest.Referrer(unwanted.Desc, "application/signature", []byte("x")))
		registrytest.Push(t, r.src, "app", cosignTag(unwanted, ".sig"), registrytest.Image(52, 10))
		sw := &replicate.Sweep{Mirror: "m", Destination: "d", Source: r.src, Target: r.dst, Queue: r.q,
			Wants: func(repo, tag string) bool { return tag == "v1" }}
		sweep := func() int {
			plan, err := sw.Plan(t.Context(), time.Time{}, nil)
			must(t, err)
			must(t, r.q.PutAll(t.Context(), plan.Jobs(time.Now())))
			r.settle(time.Minute)
			return len(plan.Differences)
		}
		// The image; then what is about it, of which events told nobody: two referrers and two tags; then a referrer's referrer.
		for i, want := range []int{1, 4, 1, 0} {
			if got := sweep(); got != want {
				t.Errorf("sweep %d: %d differences, want %d", i, got, want)
			}
		}
		s.arrived(t, r.places, "app")
		if d, err := r.dst.Resolve(t.Context(), "app", cosignTag(unwanted, ".sig")); err == nil {
			t.Errorf("what is about an image that is not wanted was copied: %v", d)
		}
	})
}
