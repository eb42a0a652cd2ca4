package replicate_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// The time that is left follows from what is left and from the speed of late, and idle time does not make it longer.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := 10 * time.Second
		r := run(t, func(o *replicate.Options) { o.Concurrency = 1 })
		r.to.Before = func(c registrytest.Call) error {
			if c.Op == "put-manifest" {
				time.Sleep(slow)
			}
			return nil
		}
		if p := r.w.Progress(); p != (replicate.Progress{}) {
			t.Errorf("nothing to do: %+v", p)
		}
		backfill := func(n int, bytes int64) {
			for i := range n {
				tag := fmt.Sprintf("t%d-%d", bytes, i)
				registrytest.Push(t, r.src, "app", tag, registrytest.Image(uint64(bytes)+uint64(i), 1000))
				j := tagJob("app", tag, "", time.Time{})
				j.Lane, j.Bytes = registry.LaneBackfill, bytes
				put(t, r.q, j)
			}
		}
		within := func(what string, got, least, most time.Duration) {
			t.Helper()
			if got < least || got > most {
				t.Errorf("%s: %v left, want %v to %v", what, got, least, most)
			}
		}
		time.Sleep(time.Hour)
		backfill(100, 1000)
		synctest.Wait()
		if p := r.w.Progress(); p.Left >= 0 || p.Jobs != 100 || p.Bytes != 100_000 {
			t.Errorf("before anything was done: %+v", p)
		}
		time.Sleep(205 * time.Second) // 20 are done
		within("by jobs", r.w.Progress().Left, 790*time.Second, 830*time.Second)
		time.Sleep(time.Hour)
		if p := r.w.Progress(); p.Jobs != 0 || p.Left != 0 {
			t.Errorf("all is done: %+v", p)
		}
		// Large images: the bytes take longer than the number of jobs says.
		backfill(10, 1_000_000)
		time.Sleep(35 * time.Second)
		p := r.w.Progress()
		if want := time.Duration(float64(p.Bytes) / p.BytesPerSecond * float64(time.Second)); p.Jobs != 7 || p.Bytes != 7_000_000 || p.Left < want-time.Second {
			t.Errorf("by bytes: %+v, want %v", p, want)
		}
	})
}
