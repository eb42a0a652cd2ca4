package replicate_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
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
