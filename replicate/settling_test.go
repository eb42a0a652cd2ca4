package replicate_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// An event may come before what it tells of: it is waited for, a little while.
func TestEventComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		registrytest.Push(t, r.src, "app", "other", registrytest.Image(2, 10)) // the repository is there
		img := registrytest.Image(1, 100)
		put(t, r.q, tagJob("app", "v1", img.Desc.Digest, time.Now()))
		time.Sleep(2 * time.Second)
		registrytest.Push(t, r.src, "app", "v1", img)
		r.settle(time.Minute)
		names(t, r.dst, "app", "v1", img)

		// The tag moves after its event.
		moved := registrytest.Image(3, 100)
		put(t, r.q, tagJob("app", "v1", moved.Desc.Digest, time.Now()))
		time.Sleep(2 * time.Second)
		names(t, r.dst, "app", "v1", img)
		registrytest.Push(t, r.src, "app", "v1", moved)
		r.settle(time.Minute)
		names(t, r.dst, "app", "v1", moved)

		// It had moved on when its event came.
		put(t, r.q, tagJob("app", "v1", d1, time.Now()))
		time.Sleep(time.Second)
		registrytest.Push(t, r.src, "app", "v1", img)
		time.Sleep(time.Second)
		names(t, r.dst, "app", "v1", img)
		r.settle(time.Minute)
		if n := strings.Count(r.log.String(), "result=superseded"); n != 2 {
			t.Errorf("%d times superseded, want once for what was found and once at the end", n)
		}

		begin := time.Now()
		put(t, r.q, tagJob("app", "never", d1, time.Now()))
		r.settle(time.Minute)
		if d := time.Since(begin); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("waited %v for what never came", d)
		}
		r.from.Forget()
		begin = time.Now()
		put(t, r.q, tagJob("nowhere", "v1", d1, time.Now()))
		sweep := tagJob("app", "swept", d1, time.Now())
		sweep.Lane = registry.LaneSweep
		put(t, r.q, sweep)
		r.settle(time.Minute)
		if d := time.Since(begin); d > time.Second || r.from.Count("resolve") != 2 {
			t.Errorf("waited %v, asked %v", d, r.from.Calls())
		}
		if s := r.log.String(); strings.Count(s, "result=gone") != 3 || len(r.given(t)) != 0 {
			t.Errorf("log: %s", s)
		}
	})
}
