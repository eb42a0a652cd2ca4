package replicate_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

var (
	d1 = digest.FromString("1")
	d2 = digest.FromString("2")
)

func TestLanesThenDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		now := time.Now()
		for _, j := range []struct {
			tag  string
			lane registry.Lane
			next time.Duration
		}{
			{"backfill", registry.LaneBackfill, -9 * time.Second}, {"event2", registry.LaneEvent, -1 * time.Second},
			{"sweep", registry.LaneSweep, 0}, {"event1", registry.LaneEvent, -2 * time.Second},
			{"client", registry.LaneClient, 0}, {"later", registry.LaneClient, time.Minute},
		} {
			job := tagJob("app", j.tag, "", time.Time{})
			job.Lane, job.NextAt = j.lane, now.Add(j.next)
			put(t, q, job)
		}
		var order []string
		for range 6 {
			j := lease(t, q)
			order = append(order, fmt.Sprintf("%s %v", j.Tag, time.Since(now)))
			must(t, q.Done(j))
		}
		want := []string{"client 0s", "event1 0s", "event2 0s", "sweep 0s", "backfill 0s", "later 1m0s"}
		if diff := cmp.Diff(want, order); diff != "" {
			t.Errorf("order of leases (-want +got):\n%s", diff)
		}
		if n := q.Pending().Waiting(); n != 0 {
			t.Errorf("%d jobs wait, want none", n)
		}
	})
}

func TestLeaseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		got := make(chan replicate.Job)
		go func() { j, _ := q.Lease(t.Context()); got <- j }()
		synctest.Wait()
		put(t, q, tagJob("app", "v1", d1, time.Time{}))
		if j := <-got; j.Tag != "v1" || j.State != replicate.Leased {
			t.Errorf("leased %+v", j)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour) // the only job is leased
		defer cancel()
		if _, err := q.Lease(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lease of an empty queue: %v", err)
		}
		closed := make(chan error)
		go func() { _, err := q.Lease(t.Context()); closed <- err }()
		synctest.Wait()
		must(t, q.Close())
		if err := <-closed; registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("lease of a closed queue: %v", err)
		}
		if err := q.Put(t.Context(), tagJob("app", "v1", d1, time.Time{})); registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("put to a closed queue: %v", err)
		}
	})
}

// A put is refreshed by repetition, and a job that is being done is done once more if it was put meanwhile.
func TestPutAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		old := time.Now().Add(-time.Hour)
		j := tagJob("app", "v1", d1, old)
		j.Lane = registry.LaneSweep
		put(t, q, j, tagJob("app", "v1", d1, old))
		want := []replicate.Job{tagJob("app", "v1", d1, time.Time{})}
		if diff := cmp.Diff(want, all(t, q)); diff != "" {
			t.Errorf("put twice (-want +got):\n%s", diff)
		}

		first := lease(t, q)
		put(t, q, tagJob("app", "v1", d2, time.Now()))
		if n := q.Pending(); n.Leased != 1 || n.Waiting() != 1 {
			t.Errorf("put of a leased job: %+v", n)
		}
		must(t, q.Done(first))
		second := lease(t, q)
		if second.Hint != d2 {
			t.Errorf("run again with hint %s, want %s", second.Hint, d2)
		}
		put(t, q, tagJob("app", "v1", d1, old)) // an older event, late: the newer hint stays, the job runs again
		must(t, q.Done(second))
		third := lease(t, q)
		if third.Hint != d2 {
			t.Errorf("an older event changed the hint to %s", third.Hint)
		}
		must(t, q.Done(third))
		if jobs := all(t, q); len(jobs) != 0 {
			t.Errorf("left over: %+v", jobs)
		}
	})
}

func TestPutAgainKeepsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.MinDelay, q.MaxDelay = time.Minute, time.Minute
		put(t, q, tagJob("app", "v1", d1, time.Now()))
		for range 3 { // a storm of the same event does not undo the backing off
			j := lease(t, q)
			before := time.Now()
			if _, err := q.Fail(j, registry.Throttled); err != nil {
				t.Fatal(err)
			}
			put(t, q, tagJob("app", "v1", d1, time.Now()))
			j = lease(t, q)
			if waited := time.Since(before); waited < 30*time.Second {
				t.Errorf("repeated event: tried again after %v", waited)
			}
			q.Release(j)
		}
		j := lease(t, q)
		if j.Attempts != 3 {
			t.Errorf("%d attempts, want 3", j.Attempts)
		}
		put(t, q, tagJob("app", "v1", d2, time.Now())) // a new push while the old one fails: afresh, at once
		before := time.Now()
		if _, err := q.Fail(j, registry.Invalid); err != nil {
			t.Fatal(err)
		}
		if j = lease(t, q); time.Since(before) != 0 || j.Attempts != 0 || j.Hint != d2 {
			t.Errorf("new push: after %v %+v", time.Since(before), j)
		}
	})
}

func TestFail(t *testing.T) {
	coded := func(c registry.Class, code string) error {
		e := registry.Errorf(c, "boom")
		e.Code = code
		return e
	}
	for _, c := range []struct {
		name     string
		cause    error
		attempts int // failures until it is given up
		state    replicate.State
	}{
		{"defect", errors.New("boom"), 4, replicate.Dead},
		{"denied", registry.Denied, 4, replicate.Dead},
		{"corrupt", registry.Corrupt, 4, replicate.Dead},
		{"not found", registry.NotFound, 1, replicate.Dead},
		{"invalid", coded(registry.Invalid, "MANIFEST_INVALID"), 1, replicate.Dead},
		{"conflict", registry.Conflict, 1, replicate.Conflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t)
				q.MaxAttempts = 4
				put(t, q, contentJob("app", d1))
				for n := 1; ; n++ {
					after, err := q.Fail(lease(t, q), fmt.Errorf("put: %w", c.cause))
					must(t, err)
					if after.State == replicate.Pending {
						continue
					}
					if n != c.attempts || after.State != c.state || after.Attempts != n {
						t.Errorf("given up after %d as %+v, want after %d as %v", n, after, c.attempts, c.state)
					}
					break
				}
				var dead []replicate.Job
				for j, err := range q.Dead(t.Context()) {
					must(t, err)
					dead = append(dead, j)
				}
				if len(dead) != 1 || dead[0].State != c.state || !strings.HasPrefix(dead[0].Err, "put: ") {
					t.Fatalf("dead letters: %+v", dead)
				}
				if n := q.Pending(); n.Waiting() != 0 || n.Dead+n.Conflict != 1 {
					t.Errorf("counts: %+v", n)
				}
				must(t, q.Retry(t.Context(), dead[0].Key))
				if j := lease(t, q); j.Attempts != 0 {
					t.Errorf("retried with %d attempts", j.Attempts)
				}
			})
		})
	}
}

// A source that is down for an hour costs no dead letter; one that is down for longer than Patience does.
func TestFailOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.MaxAttempts, q.Patience = 3, 2*time.Hour
		put(t, q, contentJob("app", d1))
		start := time.Now()
		var gaps []time.Duration
		for {
			j := lease(t, q)
			before := time.Now()
			after, err := q.Fail(j, registry.Unavailable)
			must(t, err)
			if after.State == replicate.Dead {
				break
			}
			gaps = append(gaps, after.NextAt.Sub(before))
		}
		if d := time.Since(start); d < 2*time.Hour || d > 2*time.Hour+10*time.Minute {
			t.Errorf("dead after %v, want two hours", d)
		}
		for i, g := range gaps {
			most := 10 * time.Minute
			if i < 10 {
				most = min(most, time.Second<<i)
			}
			if g < most/2 || g > most {
				t.Errorf("delay %d is %v, want from %v to %v", i, g, most/2, most)
			}
		}
	})
}

// Nor does an outage that finds a backlog of days.
func TestOutageOfABacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		put(t, q, contentJob("app", d1))
		time.Sleep(48 * time.Hour)
		fail := func() replicate.State {
			after, err := q.Fail(lease(t, q), registry.Unavailable)
			must(t, err)
			return after.State
		}
		began := time.Now()
		for time.Since(began) < 12*time.Hour {
			if s := fail(); s != replicate.Pending {
				t.Fatalf("%v after %v", s, time.Since(began))
			}
		}
		must(t, q.Close())
		q = openQueue(t, path)
		for fail() == replicate.Pending {
		}
		if d := time.Since(began); d < 24*time.Hour || d > 25*time.Hour {
			t.Errorf("dead after %v, want a day", d)
		}
	})
}

func TestFailRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for asked, want := range map[time.Duration]time.Duration{7 * time.Minute: 7 * time.Minute, 99 * time.Hour: time.Hour} {
			q := newQueue(t)
			put(t, q, contentJob("app", d1))
			j := lease(t, q)
			start := time.Now()
			_, err := q.Fail(j, fmt.Errorf("put: %w", &registry.Error{Class: registry.Throttled, RetryAfter: asked, Err: errors.New("slow down")}))
			must(t, err)
			lease(t, q)
			if d := time.Since(start); d != want {
				t.Errorf("asked for %v: waited %v, want %v", asked, d, want)
			}
			must(t, q.Close())
		}
	})
}

func TestDeadAndEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		q.MaxAttempts = 3
		put(t, q, tagJob("app", "v1", d1, time.Now()))
		for range 3 {
			_, err := q.Fail(lease(t, q), registry.Denied)
			must(t, err)
		}
		put(t, q, tagJob("app", "v1", d1, time.Now())) // a sweep that finds it every hour buys one try an hour, not three
		j, err := q.Fail(lease(t, q), registry.Denied)
		if must(t, err); j.State != replicate.Dead {
			t.Errorf("revived job after one failure: %+v", j)
		}
		if err := q.Forget(t.Context(), j.Key); err != nil || len(all(t, q)) != 0 {
			t.Errorf("forget: %v, left %+v", err, all(t, q))
		}
		if err := q.Retry(t.Context(), j.Key); !errors.Is(err, registry.NotFound) {
			t.Errorf("retry of nothing: %v", err)
		}
		put(t, q, tagJob("app", "v1", d1, time.Now()))
		if err := q.Forget(t.Context(), j.Key); !errors.Is(err, registry.Conflict) {
			t.Errorf("forget of a pending job: %v", err)
		}
	})
}

func TestPutRefuses(t *testing.T) {
	q := newQueue(t)
	for name, edit := range map[string]func(*replicate.Job){
		"no mirror":          func(j *replicate.Job) { j.Mirror = "" },
		"nul in mirror":      func(j *replicate.Job) { j.Mirror = "m\x00d" },
		"no destination":     func(j *replicate.Job) { j.Destination = "" },
		"nul in destination": func(j *replicate.Job) { j.Destination = "\x00" },
		"repository":         func(j *replicate.Job) { j.Repo = "../etc" },
		"tag":                func(j *replicate.Job) { j.Tag = "a/b" },
		"neither":            func(j *replicate.Job) { j.Tag = "" },
		"both":               func(j *replicate.Job) { j.Digest = d1 },
		"digest":             func(j *replicate.Job) { j.Tag, j.Digest = "", "sha256:zz" },
		"hint":               func(j *replicate.Job) { j.Hint = "md5:00" },
		"lane":               func(j *replicate.Job) { j.Lane = 77 },
	} {
		j := tagJob("app", "v1", d1, time.Time{})
		edit(&j)
		if err := q.Put(t.Context(), tagJob("ok", "v1", "", time.Time{}), j); !errors.Is(err, registry.Invalid) {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
	if jobs := all(t, q); len(jobs) != 0 {
		t.Errorf("a refused put left %+v", jobs)
	}
}

// While events never end, what waits in the other lanes gets its share once it has waited a minute, the longest first.
func TestNoLaneStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		n := 0
		add := func(l registry.Lane, pushed time.Time) {
			n++
			j := tagJob("app", fmt.Sprint("t", n), "", pushed)
			j.Lane, j.NextAt = l, pushed
			put(t, q, j)
		}
		for range 10 {
			add(registry.LaneBackfill, time.Now().Add(-1000*time.Hour)) // a sweep has the oldest push go first
		}
		time.Sleep(time.Second)
		for range 10 {
			add(registry.LaneSweep, time.Now().Add(-time.Hour))
		}
		got := make(map[registry.Lane]int)
		for i := range 160 {
			add(registry.LaneEvent, time.Time{})
			j := lease(t, q)
			must(t, q.Done(j))
			got[j.Lane]++
			if i < 59 && j.Lane != registry.LaneEvent {
				t.Fatalf("a job of lane %v after %d s", j.Lane, i)
			}
			time.Sleep(time.Second)
		}
		if got[registry.LaneBackfill] != 10 || got[registry.LaneSweep] != 2 {
			t.Errorf("jobs done by lane: %v", got)
		}
	})
}
