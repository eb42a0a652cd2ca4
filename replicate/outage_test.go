package replicate_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// A registry that is throttled or away for hours delays a job; it does not lose it.
func TestWorkersOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		image := registrytest.Image(1, 10)
		registrytest.Push(t, r.src, "app", "v1", image)
		back := time.Now().Add(5 * time.Hour)
		r.from.Before = func(registrytest.Call) error {
			if time.Now().Before(back) {
				return registry.Errorf(registry.Unavailable, "503")
			}
			return nil
		}
		put(t, r.q, tagJob("app", "v1", "", time.Time{}))
		r.settle(6 * time.Hour)
		names(t, r.dst, "app", "v1", image)
		if late := time.Since(back); late > 10*time.Minute+time.Second {
			t.Errorf("done %v after the source was back", late)
		}
		if n := r.from.Count("resolve"); n > 80 { // every 5 to 10 minutes at the end: not hammered
			t.Errorf("%d calls in five hours", n)
		}
	})
}

// A stop in mid-copy leaves the job pending, uncounted, and the next run completes it.
func TestWorkersStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		image := registrytest.Image(1, 10)
		registrytest.Push(t, r.src, "app", "v1", image)
		r.from.Body = func(c registrytest.Call) *registrytest.Fault {
			if c.Object.Kind == registry.Blob {
				return &registrytest.Fault{At: 1, Stall: make(chan struct{})}
			}
			return nil
		}
		job := tagJob("app", "v1", "", time.Time{})
		put(t, r.q, job)
		synctest.Wait()
		if n := r.q.Pending().Leased; n != 1 {
			t.Fatalf("%d jobs are being done", n)
		}
		must(t, r.stop())
		if diff := cmp.Diff([]replicate.Job{job}, all(t, r.q)); diff != "" {
			t.Errorf("after the stop (-want +got):\n%s", diff)
		}
		r.from.Body = nil
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.w.Run(ctx) }()
		r.settle(time.Minute)
		cancel()
		must(t, <-done)
		names(t, r.dst, "app", "v1", image)
	})
}

// A copy that stands still is cut and tried again; one that moves, however slowly, is not.
func TestWorkersNoProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, func(o *replicate.Options) { o.NoProgress = time.Minute })
		var blobs []int
		for range 20 {
			blobs = append(blobs, 10)
		}
		slow, stuck := registrytest.Image(1, blobs...), registrytest.Image(2, 10)
		registrytest.Push(t, r.src, "slow", "v1", slow)
		registrytest.Push(t, r.src, "stuck", "v1", stuck)
		var cut atomic.Bool
		r.from.Body = func(c registrytest.Call) *registrytest.Fault {
			if c.Repo == "stuck" && c.Object.Kind == registry.Blob && cut.CompareAndSwap(false, true) {
				return &registrytest.Fault{At: 1, Stall: make(chan struct{})}
			}
			return nil
		}
		r.to.Before = func(c registrytest.Call) error {
			if c.Repo == "slow" && c.Op == "put-blob" {
				time.Sleep(50 * time.Second)
			}
			return nil
		}
		put(t, r.q, tagJob("slow", "v1", "", time.Time{}), tagJob("stuck", "v1", "", time.Time{}))
		r.settle(time.Hour)
		names(t, r.dst, "slow", "v1", slow)
		names(t, r.dst, "stuck", "v1", stuck)
		must(t, r.stop())
		if n := strings.Count(r.log.String(), "no progress for 1m0s"); n != 1 || strings.Count(r.log.String(), "result=unavailable") != 1 {
			t.Errorf("log:\n%s", r.log)
		}
	})
}

// Many images with common layers, several workers, every tenth call failing one way or the other.
func TestWorkersMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, func(o *replicate.Options) { o.Concurrency = 8 })
		base := registrytest.Image(1000, 50)
		var images []registrytest.Node
		for i := range 30 {
			n := registrytest.Index(base, registrytest.Image(uint64(i), 10))
			images = append(images, n)
			registrytest.Push(t, r.src, fmt.Sprintf("app%d", i%3), fmt.Sprintf("v%d", i), n)
		}
		fault := func(every int) func(registrytest.Call) error {
			return func(c registrytest.Call) error {
				if c.N%every == 0 {
					return registry.Errorf(registry.Throttled, "fault")
				}
				return nil
			}
		}
		r.to.Before, r.to.After, r.from.Before = fault(11), fault(13), fault(17)
		for i := range images {
			put(t, r.q, tagJob(fmt.Sprintf("app%d", i%3), fmt.Sprintf("v%d", i), "", time.Time{}))
		}
		r.settle(24 * time.Hour)
		for i, n := range images {
			names(t, r.dst, fmt.Sprintf("app%d", i%3), fmt.Sprintf("v%d", i), n)
			has(t, r.dst, fmt.Sprintf("app%d", i%3), n)
		}
	})
}
