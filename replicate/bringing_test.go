package replicate_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// A process that dies between a write and its receipt knows later that the image is its own, and so do those that brought an
// index know its images: what is deleted at the source is deleted here.
func TestReaperKnowsWhatWasBrought(t *testing.T) {
	for name, tc := range map[string]struct {
		gone bool // from the source before the next start
		kept bool // by a mirror that does not carry deletions on
	}{"found again": {}, "gone since": {gone: true}, "not asked to": {kept: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var o replicate.Options
				r := &reaping{running: run(t, func(opt *replicate.Options) {
					d := opt.Mirrors["m"].Destinations["d"]
					d.Remembers = !tc.kept
					opt.Mirrors["m"].Destinations["d"] = d
					o = *opt
				}), img: registrytest.Index(registrytest.Image(1, 100), registrytest.Image(2, 100))}
				registrytest.Push(t, r.src, "app", "v1", r.img)
				wrote, dead := make(chan struct{}), make(chan struct{})
				r.to.After = func(c registrytest.Call) error {
					if c.Op != "put-manifest" || c.Tag == "" {
						return nil
					}
					r.to.After = nil
					close(wrote)
					<-dead
					return errors.New("the answer is never seen")
				}
				put(t, r.q, tagJob("app", "v1", r.img.Desc.Digest, time.Now()))
				<-wrote
				stopped := make(chan error, 1)
				go func() { stopped <- r.stop() }()
				synctest.Wait()
				close(dead)
				must(t, <-stopped)

				all := append([]registrytest.Node{r.img}, r.img.Children...)
				if tc.gone {
					for _, n := range all {
						must(t, r.src.DeleteManifest(t.Context(), "app", n.Desc.Digest))
					}
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- replicate.NewWorkers(o).Run(ctx) }()
				r.settle(time.Minute)
				if !tc.gone {
					for _, n := range all {
						must(t, r.src.DeleteManifest(t.Context(), "app", n.Desc.Digest))
					}
				}
				for _, n := range all {
					d, _ := replicate.DeletionOf("m", "d", registry.Change{Repo: "app", Digest: n.Desc.Digest, Op: registry.Delete, At: time.Now()})
					must(t, r.q.PutDeletions(t.Context(), d))
				}
				reaper := replicate.NewReaper(replicate.ReaperOptions{Mirror: "m", Destination: "d", Queue: r.q, Source: &keeper{Reader: r.from}, Target: r.to, Max: 10})
				must(t, reaper.Once(t.Context()))
				for _, n := range all {
					if r.there(t, n) != tc.kept {
						t.Errorf("%s at the destination: %v, want %v", n.Desc.Digest, !tc.kept, tc.kept)
					}
				}
				stop()
				must(t, <-ended)
			})
		})
	}
}

// A deletion of what is still on its way waits for it to arrive, or not.
func TestReaperWaitsForJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		other := registrytest.Image(5, 10)
		put(t, r.q, replicate.Job{Key: contentJob("app", other.Desc.Digest).Key, Lane: registry.LaneEvent, NextAt: time.Now().Add(time.Hour)})
		r.hear(t, r.change(other.Desc.Digest))
		r.o.Grace = 0
		r.once(t)
		if n := r.left(t); n != 1 {
			t.Errorf("%d deletions wait, want 1", n)
		}
		r.settle(2 * time.Hour)
		r.once(t)
		if n := r.left(t); n != 0 {
			t.Errorf("%d deletions wait, want none", n)
		}
	})
}

// What an index brought with it is written down for good, and the oldest of it gives way.
func TestNotesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		q.MaxReceipts = 50
		src, dst := mem.New(), mem.New()
		for i := range uint64(100) {
			n := registrytest.Index(registrytest.Image(2*i, 10), registrytest.Image(2*i+1, 10))
			registrytest.Push(t, src, "app", fmt.Sprint("v", i), n)
			put(t, q, tagJob("app", fmt.Sprint("v", i), n.Desc.Digest, time.Now()))
		}
		w := replicate.NewWorkers(replicate.Options{Queue: q, Mirrors: map[string]replicate.Mirror{"m": {Source: src, Tags: slowly{src},
			Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst, Remembers: true}}}}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		must(t, w.Run(ctx))
		if n := q.Notes(); q.Pending().Waiting() > 0 || n < 20 || n > 60 {
			t.Errorf("%d jobs wait, %d notes are kept", q.Pending().Waiting(), n)
		}
		must(t, q.Close())
		q = openQueue(t, path)
		q.MaxReceipts = 10
		n := registrytest.Image(1000, 10)
		registrytest.Push(t, src, "app", "last", n)
		put(t, q, tagJob("app", "last", n.Desc.Digest, time.Now()))
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		must(t, replicate.NewWorkers(replicate.Options{Queue: q, Mirrors: map[string]replicate.Mirror{"m": {Source: src,
			Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst, Remembers: true}}}}}).Run(ctx))
		if n := q.Notes(); n > 10 {
			t.Errorf("after a restart %d notes are kept", n)
		}
	})
}
