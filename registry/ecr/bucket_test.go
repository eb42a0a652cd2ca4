package ecr

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// empty returns a bucket without tokens.
func empty(perSecond float64) *bucket {
	b := newBucket(perSecond)
	for b.tokens.Allow() {
	}
	return b
}

// Whoever waits in the lower lane goes first, whatever came before; in a lane the first come is served first.
func TestLowerLaneFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := empty(1)
		var mu sync.Mutex
		var order []string
		start := time.Now()
		for _, l := range []registry.Lane{registry.LaneBackfill, registry.LaneSweep, registry.LaneBackfill, registry.LaneEvent, registry.LaneClient} {
			go func() {
				if err := b.wait(t.Context(), l); err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				order = append(order, l.String()+" "+time.Since(start).Round(time.Second).String())
			}()
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := []string{"client 1s", "event 2s", "sweep 3s", "backfill 4s", "backfill 5s"}
		if !slices.Equal(order, want) {
			t.Errorf("got %v, want %v", order, want)
		}
	})
}

// While a lower lane never runs dry, each other lane that waits too long gets its share, the longest waiting first.
func TestNoLaneStarves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := empty(10)
		got := make(map[registry.Lane]int)
		var mu sync.Mutex
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 200 {
			l := []registry.Lane{registry.LaneClient, registry.LaneSweep, registry.LaneBackfill, registry.LaneBackfill}[i%4]
			go func() {
				for b.wait(ctx, l) == nil {
					mu.Lock()
					got[l]++
					mu.Unlock()
				}
			}()
		}
		turns := func(d time.Duration) (clients, sweeps, backfills int) {
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return got[registry.LaneClient], got[registry.LaneSweep], got[registry.LaneBackfill]
		}
		if c, s, f := turns(9 * time.Second); c < 89 || s+f != 0 {
			t.Errorf("turns of the first nine seconds: %d, %d, %d, want all for clients", c, s, f)
		}
		c, s, f := turns(91 * time.Second)
		if share := 900 / agedShare; c < 850 || s+f < share-2 || s+f > share+2 || s < share/4 || f < share/2 {
			t.Errorf("turns of clients, sweeps and backfills: %d, %d, %d", c, s, f)
		}
	})
}

// The budget of any ten seconds is kept whatever the callers do: the rate, and one second's worth that was saved.
func TestRateIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(5)
		var calls []time.Time
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 300 {
			wg.Go(func() {
				time.Sleep(time.Duration(i*i) * time.Millisecond)
				if err := b.wait(t.Context(), registry.Lane(i%4)); err != nil {
					t.Error(err)
				}
				mu.Lock()
				calls = append(calls, time.Now())
				mu.Unlock()
			})
		}
		wg.Wait()
		for i, c := range calls {
			if j := i + 55; j < len(calls) && calls[j].Sub(c) < 10*time.Second {
				t.Fatalf("56 calls in %v", calls[j].Sub(c))
			}
		}
	})
}

// Whoever stops waiting leaves the queue and takes no turn; an idle bucket has no timer.
func TestWaitIsBoundedByContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := empty(0.1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go b.wait(t.Context(), registry.LaneBackfill)
		synctest.Wait()
		start := time.Now()
		if err := b.wait(ctx, registry.LaneClient); err != context.DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		time.Sleep(9001 * time.Millisecond) // the token that the other waits for
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.timer != nil || len(b.lanes[registry.LaneClient])+len(b.lanes[registry.LaneBackfill]) != 0 {
			t.Errorf("somebody still waits: %v", b.lanes)
		}
	})
}

func TestThrottlingLowersTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket(16)
		for range 10 { // answers of one moment count once
			b.throttled()
		}
		if n := b.tokens.Tokens(); n >= 1 {
			t.Errorf("%v tokens left after a throttling", n)
		}
		if got := float64(b.tokens.Limit()); got != 8 {
			t.Errorf("rate %v after one throttling", got)
		}
		for range 10 {
			time.Sleep(time.Second)
			b.throttled()
		}
		if got := float64(b.tokens.Limit()); got != 1 {
			t.Errorf("rate %v, want the floor of 1", got)
		}
		for range 200 {
			time.Sleep(100 * time.Millisecond)
			b.fine()
		}
		if got := float64(b.tokens.Limit()); got != 16 {
			t.Errorf("rate %v after 20 s of good answers", got)
		}
	})
}

// Two Registries of one account and region that share Limits share the quota.
func TestLimitsAreShared(t *testing.T) {
	l := NewLimits()
	c := newControl(t, step{batchGetImage, ok(imageAnswer(registrytest.Image(1), "v1")), nil}, step{batchGetImage, exc("ThrottlingException"), nil})
	share := func(o *Options) { o.Limits = l; o.Rates = map[string]float64{putImage: 3} }
	a, b := c.registry(share), c.registry(share, func(o *Options) { o.Rates = map[string]float64{putImage: 4} })
	if _, err := a.Resolve(t.Context(), "team/app", "v1"); err != nil {
		t.Fatal(err)
	}
	_, err := b.Resolve(t.Context(), "team/app", "v1")
	wantClass(t, err, registry.Throttled, codeTooManyRequests)
	if n := len(l.buckets); n != 1 {
		t.Errorf("%d buckets", n)
	}
	if got := float64(l.bucket(account, "us-west-2", batchGetImage).tokens.Limit()); got != 500 {
		t.Errorf("rate %v after a throttled answer", got)
	}
	if got := float64(l.bucket(account, "us-west-2", putImage).tokens.Limit()); got != 3 {
		t.Errorf("PutImage rate %v", got)
	}
}
