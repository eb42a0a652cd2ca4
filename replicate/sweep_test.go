package replicate_test

import (
	"context"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// catalog is a memory registry whose listings are counted and may fail, and whose tags may be immutable.
type catalog struct {
	*mem.Registry
	fixed  func(tag string) bool // set before use
	mu     sync.Mutex
	listed []string
	broken map[string]error
}

// note notes that repo was listed and returns why it cannot be.
func (c *catalog) note(repo string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listed = append(c.listed, repo)
	return c.broken[repo]
}

// fail has the listings of the repositories fail from now on, and no others; "" is that of all repositories.
func (c *catalog) fail(broken map[string]error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = broken
}

func (c *catalog) count(repo string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.listed {
		if l == repo {
			n++
		}
	}
	return n
}

func (c *catalog) Repositories(ctx context.Context) iter.Seq2[string, error] {
	if err := c.note(""); err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return c.Registry.Repositories(ctx)
}

func (c *catalog) Images(ctx context.Context, repo string, since time.Time) iter.Seq2[registry.Image, error] {
	if err := c.note(repo); err != nil {
		return func(yield func(registry.Image, error) bool) { yield(registry.Image{}, err) }
	}
	return c.Registry.Images(ctx, repo, since)
}

func (c *catalog) Fixed(context.Context, string) (func(string) bool, error) {
	return func(tag string) bool { return c.fixed != nil && c.fixed(tag) }, nil
}

func newSweep(t *testing.T) (s *replicate.Sweep, src, dst *catalog) {
	src, dst = &catalog{Registry: mem.New()}, &catalog{Registry: mem.New()}
	return &replicate.Sweep{Mirror: "m", Destination: "d", Source: src, Target: dst, Queue: newQueue(t)}, src, dst
}

// lines are a plan's differences.
func lines(p *replicate.Plan) (out []string) {
	for _, d := range p.Differences {
		l := d.Action.String() + " " + d.Repo
		if d.Tag != "" {
			l += ":" + d.Tag
		}
		out = append(out, l+" "+d.Want.Encoded()[:6])
	}
	return out
}

func plan(t *testing.T, s *replicate.Sweep) *replicate.Plan {
	t.Helper()
	p, err := s.Plan(t.Context(), time.Time{}, nil)
	must(t, err)
	return p
}

func TestSweepPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, dst := newSweep(t)
		image := func(seed uint64) registrytest.Node { return registrytest.Image(seed, 100) }
		same, moved, old, gone, untagged, tagless := image(1), image(2), image(3), image(4), image(5), image(6)
		push := func(to *catalog, repo, tag string, n registrytest.Node) {
			registrytest.Push(t, to, repo, tag, n)
			time.Sleep(time.Hour)
		}
		push(src, "b", "first", image(9)) // the destination has no such repository
		push(src, "a", "same", same)
		push(src, "a", "move", moved)
		push(src, "a", "keep", moved)
		push(src, "a", "gone", gone)
		push(src, "a", "", untagged)
		push(src, "a", "late", tagless)
		push(src, "other", "v1", same)
		push(dst, "a", "same", same)
		push(dst, "a", "move", old)
		push(dst, "a", "keep", old)
		push(dst, "a", "extra", old) // never touched
		push(dst, "a", "gone", gone)
		push(dst, "a", "", tagless)
		dst.fixed = func(tag string) bool { return tag == "keep" }
		s.Wants = func(repo, tag string) bool { return tag != "unwanted" }
		s.WantsRepo = func(repo string) bool { return repo != "other" }
		push(src, "a", "unwanted", same)

		plan(t, s) // notes what is there
		must(t, dst.DeleteManifest(t.Context(), "a", gone.Desc.Digest))
		p := plan(t, s)
		want := []string{
			"add tag b:first " + short(image(9)),
			"conflict a:keep " + short(moved), "move tag a:move " + short(moved),
			"expired a:gone " + short(gone),
			"add content a " + short(untagged),
			"add tag a:late " + short(tagless),
		}
		if d := cmp.Diff(want, lines(p)); d != "" {
			t.Errorf("plan (-want +got):\n%s", d)
		}
		if src.count("other") > 0 {
			t.Error("a repository of which nothing is wanted was listed")
		}
		if p.Images != 6 || len(p.Problems) != 0 {
			t.Errorf("%d images, problems %v", p.Images, p.Problems)
		}
		jobs := p.Jobs(time.Now())
		if len(jobs) != 4 || !jobs[0].NextAt.Before(jobs[1].NextAt) || jobs[0].Lane != registry.LaneSweep {
			t.Errorf("jobs %v", jobs)
		}
		if j := p.Jobs(time.Now().Add(1000 * time.Hour))[0]; j.Lane != registry.LaneBackfill {
			t.Errorf("what is old goes with lane %v", j.Lane)
		}
		s.Force = true
		if d := cmp.Diff("add tag a:gone "+short(gone), lines(plan(t, s))[3]); d != "" {
			t.Errorf("forced (-want +got):\n%s", d)
		}
	})
}

// A destination that cannot tell beforehand refused the tag once: it is not asked again until the source's tag moves.
func TestSweepRemembersConflicts(t *testing.T) {
	s, src, dst := newSweep(t)
	want := registrytest.Image(1, 100)
	registrytest.Push(t, src, "a", "v1", want)
	registrytest.Push(t, dst, "a", "v1", registrytest.Image(2, 100))
	p := plan(t, s)
	if got := lines(p); !strings.HasPrefix(got[0], "move tag") {
		t.Fatalf("plan %v", got)
	}
	must(t, s.Queue.PutAll(t.Context(), p.Jobs(time.Now())))
	if _, err := s.Queue.Fail(lease(t, s.Queue), registry.Errorf(registry.Conflict, "immutable")); err != nil {
		t.Fatal(err)
	}
	if got := lines(plan(t, s)); !strings.HasPrefix(got[0], "conflict") {
		t.Errorf("after the refusal: %v", got)
	}
	registrytest.Push(t, src, "a", "v1", registrytest.Image(3, 100))
	for _, l := range lines(plan(t, s)) {
		if strings.HasPrefix(l, "conflict") {
			t.Errorf("after the source's tag moved: %v", l)
		}
	}
}

func TestSweepProblems(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, src, dst := newSweep(t)
		for _, repo := range []string{"a", "b", "c"} {
			registrytest.Push(t, src, repo, "v1", registrytest.Image(1, 100))
		}
		down := registry.Errorf(registry.Unavailable, "down")
		src.fail(map[string]error{"a": down})
		dst.fail(map[string]error{"b": down})
		p := plan(t, s)
		if got := lines(p); len(got) != 1 || !strings.HasPrefix(got[0], "add tag c:v1") || p.Images != 1 {
			t.Errorf("plan %v, %d images", got, p.Images)
		}
		if len(p.Problems) != 2 || !strings.Contains(p.Problems["a"].Error(), "source: down") || !strings.Contains(p.Problems["b"].Error(), "destination: down") {
			t.Errorf("problems %v", p.Problems)
		}
		if n := src.count("a"); n != 11 {
			t.Errorf("what may pass was asked for %d times", n)
		}
		src.fail(map[string]error{"": down})
		if _, err := s.Plan(t.Context(), time.Time{}, nil); registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("the source cannot be listed: %v", err)
		}

		src.fail(nil)
		dst.fail(map[string]error{"b": down})
		time.AfterFunc(2*time.Second, func() { dst.fail(nil) })
		if p := plan(t, s); len(p.Problems) != 0 || len(p.Differences) != 3 {
			t.Errorf("after what passed: %v, problems %v", lines(p), p.Problems)
		}
		src.fail(map[string]error{"a": registry.Errorf(registry.Denied, "no")})
		before := src.count("a")
		if p := plan(t, s); len(p.Problems) != 1 || src.count("a") != before+1 {
			t.Errorf("what does not pass was asked for %d times", src.count("a")-before)
		}
	})
}

// What events lost is found by the next sweep; a tag moved to an older image, and a repository that could not be compared,
// by a later one.
func TestSweeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		src, dst := &catalog{Registry: r.src}, &catalog{Registry: r.dst}
		older, newer := registrytest.Image(1, 100), registrytest.Image(2, 100)
		registrytest.Push(t, r.src, "app", "v1", older)
		sweeping := replicate.NewSweeping(replicate.SweepingOptions{Sweeps: []*replicate.Sweep{
			{Mirror: "m", Destination: "d", Source: src, Target: dst, Queue: r.q, Interval: time.Hour}}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- sweeping.Run(ctx) }()

		time.Sleep(10 * time.Minute)
		names(t, r.dst, "app", "v1", older)
		registrytest.Push(t, r.src, "app", "v2", newer)
		time.Sleep(70 * time.Minute)
		names(t, r.dst, "app", "v2", newer)

		time.Sleep(3 * time.Hour)
		if listed := dst.count("app"); listed > 3 { // two sweeps with news, and perhaps the repository's turn
			t.Errorf("the destination was listed %d times", listed)
		}
		registrytest.Push(t, r.src, "app", "v2", older)
		time.Sleep(25 * 70 * time.Minute)
		names(t, r.dst, "app", "v2", older)

		src.fail(map[string]error{"app": registry.Errorf(registry.Denied, "no")})
		registrytest.Push(t, r.src, "app", "v3", registrytest.Image(3, 100))
		time.Sleep(4 * time.Hour)
		src.fail(nil)
		time.Sleep(70 * time.Minute)
		names(t, r.dst, "app", "v3", registrytest.Image(3, 100))
		stop()
		must(t, <-ended)
	})
}
