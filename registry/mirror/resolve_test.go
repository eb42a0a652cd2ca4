package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
)

var (
	atSource      = registry.DescriptorOf("application/vnd.oci.image.manifest.v1+json", []byte("source"))
	atDestination = registry.DescriptorOf("application/vnd.oci.image.manifest.v1+json", []byte("destination"))
	known         = registry.DescriptorOf("application/vnd.oci.image.manifest.v1+json", []byte("known"))
)

// upstream answers every resolve by its say function and counts them.
type upstream struct {
	registry.Reader
	mu    sync.Mutex
	say   func(ctx context.Context) (registry.Descriptor, error)
	calls int
	lanes []registry.Lane
}

func (u *upstream) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	u.mu.Lock()
	u.calls++
	u.lanes = append(u.lanes, registry.LaneOf(ctx))
	say := u.say
	u.mu.Unlock()
	return say(ctx)
}

func (u *upstream) set(say func(context.Context) (registry.Descriptor, error)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.say = say
}

func (u *upstream) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls
}

func says(d registry.Descriptor) func(context.Context) (registry.Descriptor, error) {
	return func(context.Context) (registry.Descriptor, error) { return d, nil }
}

func fails(c registry.Class) func(context.Context) (registry.Descriptor, error) {
	return func(context.Context) (registry.Descriptor, error) {
		return registry.Descriptor{}, registry.Errorf(c, "upstream says %v", c)
	}
}

func hangs(ctx context.Context) (registry.Descriptor, error) {
	<-ctx.Done()
	return registry.Descriptor{}, ctx.Err()
}

// after answers what say does once a while has passed.
func after(wait time.Duration, say func(context.Context) (registry.Descriptor, error)) func(context.Context) (registry.Descriptor, error) {
	return func(ctx context.Context) (registry.Descriptor, error) {
		select {
		case <-time.After(wait):
			return say(ctx)
		case <-ctx.Done():
			return registry.Descriptor{}, ctx.Err()
		}
	}
}

// store is a TagStore in a map.
type store struct {
	mu  sync.Mutex
	m   map[string]registry.Descriptor
	at  map[string]time.Time
	err error
}

func newStore() *store {
	return &store{m: map[string]registry.Descriptor{}, at: map[string]time.Time{}}
}

func (s *store) Load(repo, tag string) (registry.Descriptor, time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.m[repo+":"+tag]
	return d, s.at[repo+":"+tag], ok
}

func (s *store) Save(repo, tag string, d registry.Descriptor, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[repo+":"+tag], s.at[repo+":"+tag] = d, at
	return s.err
}

func (s *store) Delete(repo, tag string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.m, func(k string, _ registry.Descriptor) bool {
		return k == repo+":"+tag || tag == "" && strings.HasPrefix(k, repo+":")
	})
	return s.err
}

// answer is what one resolve came to.
type answer struct {
	Desc  registry.Descriptor
	Class registry.Class // of the error; meaningless with a Desc
	Tier  string
	Stale time.Duration
}

func resolve(t *testing.T, m *mirror.Mirror, repo, tag string) answer {
	t.Helper()
	var tr registry.Trace
	d, err := m.Resolve(registry.WithTrace(t.Context(), &tr), repo, tag)
	a := answer{Desc: d, Tier: tr.Tier(), Stale: tr.Stale()}
	if err != nil {
		a.Class = registry.ClassOf(err)
	}
	return a
}

// TestSituations is the policy as a table: what each upstream does, with and without a last known answer an hour old.
func TestSituations(t *testing.T) {
	type say = func(context.Context) (registry.Descriptor, error)
	src, dst, down, slow := says(atSource), says(atDestination), fails(registry.Unavailable), hangs
	missing, denied, busy := fails(registry.NotFound), fails(registry.Denied), fails(registry.Throttled)
	gone, no, none, throttled := answer{Class: registry.NotFound}, answer{Class: registry.Denied}, answer{Class: registry.Unavailable}, answer{Class: registry.Throttled}
	s, d, last := answer{Desc: atSource, Tier: "source"}, answer{Desc: atDestination, Tier: "destination"}, answer{Desc: known, Tier: "local", Stale: time.Hour}
	plus := func(a answer, d time.Duration) answer { a.Stale += d; return a }
	const S, D = mirror.AuthoritySource, mirror.AuthorityDestination
	for _, tc := range []struct {
		name                string
		authority           mirror.Authority
		source, destination say
		fresh, knowing      answer // with nothing known; with a last known answer
		calls, callsKnowing [2]int // at the source, at the destination
	}{
		{"up up", S, src, dst, s, s, [2]int{1, 0}, [2]int{1, 0}},
		{"gone up", S, missing, dst, gone, gone, [2]int{1, 0}, [2]int{1, 0}},
		{"denied up", S, denied, dst, no, no, [2]int{1, 0}, [2]int{1, 0}},
		{"busy up", S, busy, dst, d, d, [2]int{1, 1}, [2]int{1, 1}},
		{"down up", S, down, dst, d, d, [2]int{1, 1}, [2]int{1, 1}},
		{"corrupt up", S, fails(registry.Corrupt), dst, d, d, [2]int{1, 1}, [2]int{1, 1}},
		{"slow up", S, slow, dst, d, d, [2]int{1, 1}, [2]int{1, 1}},
		{"down missing", S, down, missing, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"busy missing", S, busy, missing, throttled, last, [2]int{1, 1}, [2]int{1, 1}},
		{"slow missing", S, slow, missing, none, plus(last, time.Second), [2]int{2, 2}, [2]int{1, 1}},
		{"down denied", S, down, denied, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"down down", S, down, down, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"down busy", S, down, busy, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"slow slow", S, slow, slow, none, plus(last, 2*time.Second), [2]int{2, 2}, [2]int{1, 1}},
		{"late missing", S, after(3*time.Second, src), missing, s, plus(last, time.Second), [2]int{2, 1}, [2]int{1, 1}},
		{"defect up", S, fails(registry.Invalid), dst, answer{Class: registry.Invalid}, answer{Class: registry.Invalid}, [2]int{1, 0}, [2]int{1, 0}},

		{"up alone", S, src, nil, s, s, [2]int{1, 0}, [2]int{1, 0}},
		{"gone alone", S, missing, nil, gone, gone, [2]int{1, 0}, [2]int{1, 0}},
		{"down alone", S, down, nil, none, last, [2]int{1, 0}, [2]int{1, 0}},
		{"late alone", S, after(3*time.Second, src), nil, s, plus(last, time.Second), [2]int{2, 0}, [2]int{1, 0}},
		{"destination authority without one", D, src, nil, s, s, [2]int{1, 0}, [2]int{1, 0}},

		{"D: up up", D, src, dst, d, d, [2]int{0, 1}, [2]int{0, 1}},
		{"D: up missing", D, src, missing, s, s, [2]int{1, 1}, [2]int{1, 1}},
		{"D: missing missing", D, missing, missing, gone, gone, [2]int{1, 1}, [2]int{1, 1}},
		{"D: denied missing", D, denied, missing, no, no, [2]int{1, 1}, [2]int{1, 1}},
		{"D: down missing", D, down, missing, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"D: slow missing", D, slow, missing, none, plus(last, time.Second), [2]int{2, 2}, [2]int{1, 1}},
		{"D: up denied", D, src, denied, no, no, [2]int{0, 1}, [2]int{0, 1}},
		{"D: up down", D, src, down, s, s, [2]int{1, 1}, [2]int{1, 1}},
		{"D: missing down", D, missing, down, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"D: denied down", D, denied, down, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"D: down down", D, down, down, none, last, [2]int{1, 1}, [2]int{1, 1}},
		{"D: missing busy", D, missing, busy, throttled, last, [2]int{1, 1}, [2]int{1, 1}},
	} {
		for _, knowing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/known=%v", tc.name, knowing), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					source, destination := &upstream{say: tc.source}, &upstream{say: tc.destination}
					tags := newStore()
					o := mirror.Options{Objects: mem.New(), Source: source, Authority: tc.authority, Tags: tags}
					if tc.destination != nil {
						o.Destination = destination
					}
					want, calls := tc.fresh, tc.calls
					if knowing {
						want, calls = tc.knowing, tc.callsKnowing
						tags.Save("team/app", "v1", known, time.Now().Add(-time.Hour))
					}
					got := resolve(t, mirror.New(o), "team/app", "v1")
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("answer (-want +got):\n%s", diff)
					}
					if got := [2]int{source.count(), destination.count()}; got != calls {
						t.Errorf("calls at source, destination: %v, want %v", got, calls)
					}
					d, _, ok := tags.Load("team/app", "v1")
					switch stillKnown := knowing && (want.Stale > 0 || want.Class != registry.NotFound); {
					case want.Desc.Digest != "" && d.Digest != want.Desc.Digest:
						t.Errorf("store holds %v, want %v", d.Digest, want.Desc.Digest)
					case want.Desc.Digest == "" && ok != stillKnown:
						t.Errorf("store holds the tag: %v, want %v", ok, stillKnown)
					}
				})
			})
		}
	}
}

func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, destination := &upstream{say: says(atSource)}, &upstream{say: says(atDestination)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, Destination: destination})
		fromSource := answer{Desc: atSource, Tier: "source"}
		local := answer{Desc: atSource, Tier: "local"}
		stand := answer{Desc: atDestination, Tier: "destination"}
		standLocal := answer{Desc: atDestination, Tier: "local"}
		gone := answer{Class: registry.NotFound}
		for i, step := range []struct {
			do    func()
			want  answer
			calls [2]int // so far
		}{
			{func() {}, fromSource, [2]int{1, 0}},
			{func() { time.Sleep(59 * time.Second) }, local, [2]int{1, 0}},
			{func() { time.Sleep(time.Second) }, fromSource, [2]int{2, 0}},
			{func() { m.Invalidate("team/app", "other") }, local, [2]int{2, 0}},
			{func() { m.Invalidate("team/app", "v1") }, fromSource, [2]int{3, 0}},
			{func() { m.Invalidate("team", "") }, local, [2]int{3, 0}},
			{func() { m.Invalidate("team/app", "") }, fromSource, [2]int{4, 0}},
			// Gone is remembered for 5 s, and an event ends it.
			{func() { m.Invalidate("team/app", "v1"); source.set(fails(registry.NotFound)) }, gone, [2]int{5, 0}},
			{func() { time.Sleep(4 * time.Second) }, gone, [2]int{5, 0}},
			{func() { time.Sleep(time.Second) }, gone, [2]int{6, 0}},
			{func() { source.set(says(atSource)) }, gone, [2]int{6, 0}},
			{func() { m.Invalidate("team/app", "v1") }, fromSource, [2]int{7, 0}},
			// What the destination said in the source's stead is fresh for 5 s only.
			{func() { time.Sleep(time.Minute); source.set(fails(registry.Unavailable)) }, stand, [2]int{8, 1}},
			{func() { time.Sleep(4 * time.Second) }, standLocal, [2]int{8, 1}},
			{func() { time.Sleep(time.Second); source.set(says(atSource)) }, fromSource, [2]int{9, 1}},
			// Gone while the answer was known: an outage does not bring it back.
			{func() { m.Invalidate("team/app", "v1"); source.set(fails(registry.NotFound)) }, gone, [2]int{10, 1}},
			{func() {
				time.Sleep(5 * time.Second)
				source.set(fails(registry.Unavailable))
				destination.set(fails(registry.Unavailable))
			}, answer{Class: registry.Unavailable}, [2]int{11, 2}},
		} {
			step.do()
			if diff := cmp.Diff(step.want, resolve(t, m, "team/app", "v1")); diff != "" {
				t.Fatalf("step %d (-want +got):\n%s", i, diff)
			}
			if got := [2]int{source.count(), destination.count()}; got != step.calls {
				t.Fatalf("step %d: calls %v, want %v", i, got, step.calls)
			}
		}
	})
}

func TestStaleEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &upstream{say: says(atSource)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, StaleFor: time.Hour})
		resolve(t, m, "team/app", "v1")
		source.set(fails(registry.Unavailable))
		time.Sleep(time.Hour)
		if diff := cmp.Diff(answer{Desc: atSource, Tier: "local", Stale: time.Hour}, resolve(t, m, "team/app", "v1")); diff != "" {
			t.Errorf("an hour old (-want +got):\n%s", diff)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff(answer{Class: registry.Unavailable}, resolve(t, m, "team/app", "v1")); diff != "" {
			t.Errorf("older (-want +got):\n%s", diff)
		}
	})
}

func TestNegativeOptionsTurnOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &upstream{say: says(atSource)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, TTL: -1, StaleFor: -1, NegativeTTL: -1})
		resolve(t, m, "team/app", "v1")
		resolve(t, m, "team/app", "v1")
		source.set(fails(registry.NotFound))
		resolve(t, m, "team/app", "gone")
		resolve(t, m, "team/app", "gone")
		source.set(fails(registry.Unavailable))
		got := resolve(t, m, "team/app", "v1")
		if got.Class != registry.Unavailable || source.count() != 5 {
			t.Errorf("%+v after %d calls, want unavailable after 5", got, source.count())
		}
	})
}

// A stored answer is the last known one, never a fresh one: events may have been missed.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, tags := &upstream{say: says(atSource)}, newStore()
		tags.err = errors.New("disk full") // and a store that fails costs nothing but its answers
		resolve(t, mirror.New(mirror.Options{Objects: mem.New(), Source: source, Tags: tags}), "team/app", "v1")
		time.Sleep(time.Second)
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, Tags: tags})
		if got := resolve(t, m, "team/app", "v1"); got.Tier != "source" || source.count() != 2 {
			t.Errorf("after a restart: %+v, %d calls, want one more at the source", got, source.count())
		}
	})
}

func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &upstream{say: after(500*time.Millisecond, says(atSource))}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source})
		leaving, leave := context.WithCancel(t.Context())
		var left, stayed atomic.Int32
		for i := range 50 {
			ctx := t.Context()
			if i == 0 { // the one whose call it is leaves first
				ctx = leaving
			}
			go func() {
				if d, err := m.Resolve(ctx, "team/app", "v1"); err == nil && d.Digest == atSource.Digest {
					stayed.Add(1)
				} else if errors.Is(err, context.Canceled) && registry.ClassOf(err) == registry.Unavailable {
					left.Add(1)
				}
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		if left.Load() != 1 {
			t.Errorf("the caller that left waits on")
		}
		time.Sleep(time.Second)
		if stayed.Load() != 49 || source.count() != 1 {
			t.Errorf("%d of 49 answered by %d calls, want all by 1", stayed.Load(), source.count())
		}
		// Another lane is another call: a client must not wait in a sweep's queue.
		go m.Resolve(registry.WithLane(t.Context(), registry.LaneSweep), "team/app", "v2")
		go m.Resolve(t.Context(), "team/app", "v2")
		time.Sleep(time.Second)
		source.mu.Lock()
		defer source.mu.Unlock()
		if diff := cmp.Diff(map[registry.Lane]int{registry.LaneClient: 2, registry.LaneSweep: 1}, tally(source.lanes)); diff != "" {
			t.Errorf("lanes (-want +got):\n%s", diff)
		}
	})
}

func tally[T comparable](items []T) map[T]int {
	n := make(map[T]int)
	for _, it := range items {
		n[it]++
	}
	return n
}

// An event while a call is under way: the call's answer may be older than the event.
func TestInvalidateDuringFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &upstream{say: after(500*time.Millisecond, says(known))}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source})
		go m.Resolve(t.Context(), "team/app", "v1")
		synctest.Wait()
		source.set(says(atSource))
		m.Invalidate("team/app", "v1")
		if got := resolve(t, m, "team/app", "v1"); got.Desc.Digest != atSource.Digest || source.count() != 2 {
			t.Errorf("a resolve after the event joined a call from before it: %+v, %d calls", got, source.count())
		}
		time.Sleep(time.Second) // the older call ends last and replaces nothing
		if got := resolve(t, m, "team/app", "v1"); got.Desc.Digest != atSource.Digest || got.Tier != "local" {
			t.Errorf("after the older call: %+v, want the newer answer", got)
		}

		// The same with nobody asking in between: the older answer is at hand, but not fresh.
		source.set(after(500*time.Millisecond, says(known)))
		go m.Resolve(t.Context(), "team/app", "v2")
		synctest.Wait()
		m.Invalidate("team/app", "v2")
		time.Sleep(time.Second)
		source.set(says(atSource))
		if got := resolve(t, m, "team/app", "v2"); got.Tier != "source" {
			t.Errorf("an answer from before the event passes for fresh: %+v", got)
		}

		// The same with an event of the whole repository, and a tag that nobody knew.
		source.set(after(500*time.Millisecond, says(known)))
		go m.Resolve(t.Context(), "team/app", "v3")
		synctest.Wait()
		m.Invalidate("team/app", "")
		time.Sleep(time.Second)
		source.set(says(atSource))
		if got := resolve(t, m, "team/app", "v3"); got.Tier != "source" {
			t.Errorf("an answer from before the repository's event passes for fresh: %+v", got)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source, destination := &upstream{say: hangs}, &upstream{say: says(atDestination)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, Destination: destination})
		tag := 0
		next := func(want string, calls int, took time.Duration) {
			t.Helper()
			tag++
			start := time.Now()
			got := resolve(t, m, "team/app", fmt.Sprint("v", tag))
			if got.Tier != want || source.count() != calls || time.Since(start) != took {
				t.Fatalf("resolve %d: %+v after %d calls in %v, want %s, %d, %v", tag, got, source.count(), time.Since(start), want, calls, took)
			}
		}
		for i := range 3 {
			next("destination", i+1, time.Second)
		}
		next("destination", 3, 0) // left alone
		time.Sleep(4 * time.Second)
		next("destination", 3, 0)
		time.Sleep(time.Second)
		done := make(chan bool)
		go func() { next("destination", 4, time.Second); close(done) }() // one tries again
		synctest.Wait()
		if got := resolve(t, m, "team/app", "meanwhile"); got.Tier != "destination" || source.count() != 4 {
			t.Errorf("while one tries: %+v, %d calls", got, source.count())
		}
		<-done
		source.set(says(atSource))
		next("destination", 4, 0)
		time.Sleep(5 * time.Second)
		next("source", 5, 0) // back
		next("source", 6, 0)
	})
}

// A 404, 403 or 429 is an answer: only silence opens the breaker.
func TestBreakerIgnoresAnswers(t *testing.T) {
	for _, c := range []registry.Class{registry.NotFound, registry.Denied, registry.Throttled} {
		source := &upstream{say: fails(c)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, NegativeTTL: -1})
		for range 5 {
			resolve(t, m, "team/app", "v1")
		}
		if source.count() != 5 {
			t.Errorf("%v: %d calls, want 5", c, source.count())
		}
	}
}

// A purge leaves nothing to answer with, not even in an outage and after a restart; other tags and repositories stay.
func TestPurge(t *testing.T) {
	for _, tag := range []string{"v1", ""} {
		synctest.Test(t, func(t *testing.T) {
			source, tags := &upstream{say: says(atSource)}, newStore()
			m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, Tags: tags})
			for _, ref := range [][2]string{{"team/app", "v1"}, {"team/app", "v2"}, {"team/app2", "v1"}} {
				resolve(t, m, ref[0], ref[1])
			}
			if err := m.Purge("team/app", tag); err != nil {
				t.Fatal(err)
			}
			before := source.count()
			resolve(t, m, "team/app2", "v1")
			if source.count() != before {
				t.Error("another repository was forgotten")
			}
			source.set(fails(registry.Unavailable))
			for _, m := range []*mirror.Mirror{m, mirror.New(mirror.Options{Objects: mem.New(), Source: source, Tags: tags})} {
				if got := resolve(t, m, "team/app", "v1"); got.Class != registry.Unavailable {
					t.Errorf("purge %q: %+v, want unavailable", tag, got)
				}
				want := atSource
				if tag == "" {
					want = registry.Descriptor{}
				}
				if got := resolve(t, m, "team/app", "v2"); got.Desc.Digest != want.Digest {
					t.Errorf("purge %q: v2 is %+v", tag, got)
				}
			}
			tags.err = errors.New("disk full")
			if err := m.Purge("team/app", tag); err == nil {
				t.Error("a store that fails: no error")
			}
		})
	}
}
