package replicate_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func lent(tag string) replicate.Job {
	j := tagJob("app", tag, d1, time.Time{})
	j.Lent = true
	return j
}

// Whoever lent a job hears when it is over, and not before: not when it failed, nor when it is to run once more.
func TestSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		put(t, q, lent("v1"), lent("v2"))
		settled := make(chan error, 1)
		go func() { settled <- q.Settle(t.Context(), lent("v1").Key, lent("v2").Key) }()
		waits := func(when string) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-settled:
				t.Fatalf("settled %s: %v", when, err)
			default:
			}
		}
		waits("before anything was done")
		j := lease(t, q)
		must(t, q.Done(j))
		waits("after one of two")
		j = lease(t, q)
		put(t, q, lent(j.Tag))
		must(t, q.Done(j))
		waits("although it came again")
		_, err := q.Fail(lease(t, q), registry.Unavailable)
		must(t, err)
		waits("after a failure")
		if n, other := q.Stalled("m"), q.Stalled("other"); n != 1 || other != 0 {
			t.Errorf("%d stalled, want the one that failed", n)
		}
		j = lease(t, q)
		if n := q.Stalled("m"); n != 0 {
			t.Errorf("%d stalled while it is worked on", n)
		}
		must(t, q.Done(j))
		must(t, <-settled)
		must(t, q.Settle(t.Context(), lent("never").Key))

		put(t, q, lent("v3"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Settle(ctx, lent("v3").Key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait that ended: %v", err)
		}
		go func() { settled <- q.Settle(t.Context(), lent("v3").Key) }()
		synctest.Wait()
		must(t, q.Close())
		if err := <-settled; registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("closed: %v", err)
		}
	})
}

// What stalls at several destinations is one message that keeps nobody busy, not several.
func TestStalledAtSeveralDestinations(t *testing.T) {
	q := newQueue(t)
	here, there := lent("v1"), lent("v1")
	there.Destination = "elsewhere"
	put(t, q, here, there)
	for range 2 {
		_, err := q.Fail(lease(t, q), registry.Unavailable)
		must(t, err)
	}
	if n := q.Stalled("m"); n != 1 {
		t.Errorf("%d stalled, want the one message", n)
	}
}

// The file has a lent job only once it was given up, or once a miss asked for it, too.
func TestLentJobsAreNotStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := openQueue(t, path)
	q.MaxAttempts = 1
	put(t, q, lent("dead"))
	_, err := q.Fail(lease(t, q), registry.Denied)
	must(t, err)
	must(t, q.Settle(t.Context(), lent("dead").Key)) // it is written down here: the message may go
	put(t, q, lent("lent"), lent("both"))
	put(t, q, tagJob("app", "both", d1, time.Time{}))
	put(t, q, lent("both"))
	must(t, q.Close())
	q = openQueue(t, path)
	states := map[string]replicate.State{}
	for j, err := range q.Jobs(t.Context()) {
		must(t, err)
		states[j.Tag] = j.State
	}
	if len(states) != 2 || states["both"] != replicate.Pending || states["dead"] != replicate.Dead {
		t.Errorf("after a restart: %v", states)
	}
}
