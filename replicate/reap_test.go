package replicate_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// keeper is a source as ECR is one: it may keep what it does not show, and expire images.
type keeper struct {
	registry.Reader
	archived digest.Digest
	policy   bool
	err      error // of both questions
	asked    int
}

func (k *keeper) Keeps(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	k.asked++
	if k.err != nil || d == k.archived {
		return k.err == nil, k.err
	}
	_, err := k.Stat(ctx, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d})
	if registry.ClassOf(err) == registry.NotFound && registry.CodeOf(err) != registry.CodeNameUnknown {
		return false, nil
	}
	return err == nil, err
}

func (k *keeper) Expires(context.Context, string) (bool, error) { return k.policy, k.err }

// reaping is a mirror that brought app:v1, of which the source has told that it is gone.
type reaping struct {
	*running
	img    registrytest.Node
	keeper *keeper
	o      replicate.ReaperOptions
}

const grace = 24 * time.Hour

// reap prepares the deletion; it is called in a synctest bubble.
func reap(t *testing.T) *reaping {
	r := &reaping{running: run(t, nil), img: registrytest.Image(1, 100)}
	registrytest.Push(t, r.src, "app", "v1", r.img)
	put(t, r.q, tagJob("app", "v1", r.img.Desc.Digest, time.Now()))
	r.settle(time.Minute)
	names(t, r.dst, "app", "v1", r.img)
	r.keeper = &keeper{Reader: r.from}
	r.o = replicate.ReaperOptions{Mirror: "m", Destination: "d", Queue: r.q, Source: r.keeper, Target: r.to, Grace: grace, Max: 10,
		Metrics: replicate.NewReaperMetrics()}
	r.from.Forget()
	r.to.Forget()
	return r
}

func (r *reaping) change(d digest.Digest) registry.Change {
	return registry.Change{Repo: "app", Tag: "v1", Digest: d, Op: registry.Delete, At: time.Now()}
}

// hear has the queue told that d is gone.
func (r *reaping) hear(t *testing.T, c registry.Change) {
	t.Helper()
	d, ok := replicate.DeletionOf("m", "d", c)
	if !ok {
		t.Fatalf("%+v is no deletion", c)
	}
	must(t, r.q.PutDeletions(t.Context(), d))
}

func (r *reaping) once(t *testing.T) {
	t.Helper()
	must(t, replicate.NewReaper(r.o).Once(t.Context()))
}

// results are the counters of what became of deletions, and what waits.
func (r *reaping) results(t *testing.T) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(r.o.Metrics.Collectors()...)
	families, err := reg.Gather()
	must(t, err)
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "ecr_mirror_deletions_waiting" {
				got["waiting"] += m.GetGauge().GetValue()
				continue
			}
			for _, l := range m.GetLabel() {
				if l.GetName() == "result" {
					got[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	return got
}

// left are the repositories and digests of which deletions wait.
func (r *reaping) left(t *testing.T) (n int) {
	t.Helper()
	for _, err := range r.q.Deletions(t.Context()) {
		must(t, err)
		n++
	}
	return n
}

func (r *reaping) there(t *testing.T, n registrytest.Node) bool {
	t.Helper()
	_, err := r.dst.Stat(t.Context(), registry.Object{Repo: "app", Kind: registry.Manifest, Digest: n.Desc.Digest})
	if err != nil && registry.ClassOf(err) != registry.NotFound {
		t.Fatal(err)
	}
	return err == nil
}

// Each guard alone saves the image.
func TestReaperGuards(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*testing.T, *reaping)
		want    map[string]float64
		left    int
	}{
		"nothing speaks against it": {func(*testing.T, *reaping) {}, map[string]float64{"deleted": 1}, 0},
		"within the grace period":   {func(_ *testing.T, r *reaping) { r.o.Grace = grace + 1 }, map[string]float64{"waiting": 1}, 1},
		"the source still has it": {func(t *testing.T, r *reaping) { registrytest.Push(t, r.src, "app", "v2", r.img) },
			map[string]float64{"still_there": 1}, 0},
		"it is archived": {func(_ *testing.T, r *reaping) { r.keeper.archived = r.img.Desc.Digest }, map[string]float64{"still_there": 1}, 0},
		"the source does not answer": {func(_ *testing.T, r *reaping) { r.keeper.err = registry.Unavailable },
			map[string]float64{"unsure": 1, "waiting": 1}, 1},
		"the source refuses to answer": {func(_ *testing.T, r *reaping) { r.keeper.err = registry.Denied },
			map[string]float64{"unsure": 1, "waiting": 1}, 1},
		"the repository is gone": {func(_ *testing.T, r *reaping) {
			r.keeper.err = &registry.Error{Class: registry.NotFound, Code: registry.CodeNameUnknown, Err: errors.New("no such repository")}
		}, map[string]float64{"no_repository": 1}, 0},
		"it may have expired": {func(_ *testing.T, r *reaping) { r.keeper.policy = true }, map[string]float64{"may_have_expired": 1}, 0},
		"it may have expired, which counts": {func(_ *testing.T, r *reaping) { r.keeper.policy, r.o.Expired = true, true },
			map[string]float64{"deleted": 1}, 0},
		"none may be deleted": {func(_ *testing.T, r *reaping) { r.o.Max = 0 }, map[string]float64{"waiting": 1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := reap(t)
				must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
				r.hear(t, r.change(r.img.Desc.Digest))
				time.Sleep(grace)
				tc.prepare(t, r)
				planned, err := replicate.NewReaper(r.o).Plan(t.Context())
				must(t, err)
				if len(planned) != 1 || planned[0].Due.Sub(planned[0].Heard) != r.o.Grace || tc.want[planned[0].Result] == 0 && planned[0].Result != "delete" || r.to.Count("delete") != 0 {
					t.Errorf("planned: %+v", planned)
				}
				r.once(t)
				got := r.results(t)
				if got["waiting"] == 0 {
					delete(got, "waiting")
				}
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("results (-want +got):\n%s", d)
				}
				gone := tc.want["deleted"] == 1
				if r.there(t, r.img) == gone || r.left(t) != tc.left {
					t.Errorf("at the destination: %v; %d deletions left, want %d", !gone, r.left(t), tc.left)
				}
				if n := r.to.Count("delete"); (n == 1) != gone {
					t.Errorf("%d deletions at the destination", n)
				}
				_, receipt, err := r.q.Receipt(contentJob("app", r.img.Desc.Digest).Key)
				must(t, err)
				_, tagged, err := r.q.Receipt(tagJob("app", "v1", "", time.Time{}).Key)
				must(t, err)
				if receipt == gone || tagged == gone {
					t.Errorf("receipts: %v of the image, %v of the tag", receipt, tagged)
				}
			})
		})
	}
}

// Somebody else's copy stays: one that was there before, one that merely got a tag from us, one that we know nothing of.
func TestReaperSparesWhatIsNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		before, unknown := registrytest.Image(2, 100), registrytest.Image(3, 100)
		registrytest.Push(t, r.dst, "app", "theirs", before)
		registrytest.Push(t, r.dst, "app", "unknown", unknown)
		registrytest.Push(t, r.src, "app", "v2", before)
		put(t, r.q, tagJob("app", "v2", before.Desc.Digest, time.Now()))
		r.settle(time.Minute)
		names(t, r.dst, "app", "v2", before)
		must(t, r.src.DeleteManifest(t.Context(), "app", before.Desc.Digest))
		r.hear(t, r.change(before.Desc.Digest))
		if n := r.left(t); n != 0 {
			t.Errorf("%d deletions of what nobody here brought are kept", n)
		}
		later := tagJob("app", "later", "", time.Time{}) // it might bring one of them
		later.NextAt = time.Now().Add(2 * grace)
		put(t, r.q, later)
		r.hear(t, r.change(before.Desc.Digest))
		r.hear(t, r.change(unknown.Desc.Digest))
		time.Sleep(grace)
		r.once(t)
		if got := r.results(t); got["not_ours"] != 2 || r.keeper.asked != 0 || r.to.Count("delete") != 0 {
			t.Errorf("%v, the source asked %d times", got, r.keeper.asked)
		}
		names(t, r.dst, "app", "v2", before)
	})
}

// What CloudTrail says somebody deleted has not expired, in whatever order the two events come.
func TestReaperBelievesCloudTrail(t *testing.T) {
	for _, explicitFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := reap(t)
			r.keeper.policy = true
			must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
			for _, explicit := range []bool{explicitFirst, !explicitFirst} {
				c := r.change(r.img.Desc.Digest)
				c.Explicit = explicit
				r.hear(t, c)
				time.Sleep(time.Minute)
			}
			time.Sleep(grace)
			r.once(t)
			if r.there(t, r.img) {
				t.Errorf("explicit first %v: still there: %v", explicitFirst, r.results(t))
			}
		})
	}
}

// A repetition does not put a deletion off, and a deletion after another push has a grace period of its own.
func TestReaperGracePeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
		first := r.change(r.img.Desc.Digest)
		r.hear(t, first)
		time.Sleep(grace / 2)
		r.hear(t, first)
		second := r.change(r.img.Desc.Digest)
		time.Sleep(grace/2 - 1)
		r.once(t)
		if !r.there(t, r.img) {
			t.Fatal("deleted a moment early")
		}
		r.hear(t, second)
		time.Sleep(grace - 1)
		r.once(t)
		if !r.there(t, r.img) {
			t.Fatal("the second deletion had no grace period")
		}
		time.Sleep(time.Nanosecond)
		r.once(t)
		if r.there(t, r.img) {
			t.Errorf("not deleted: %v", r.results(t))
		}
	})
}

// A run deletes so many and no more; the next goes on, the oldest first.
func TestReaperCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		r.o.Max = 2
		var images []registrytest.Node
		for i := range 5 {
			n := registrytest.Image(uint64(10+i), 100)
			images = append(images, n)
			registrytest.Push(t, r.src, "app", fmt.Sprint(i), n)
			put(t, r.q, tagJob("app", fmt.Sprint(i), n.Desc.Digest, time.Now()))
		}
		r.settle(time.Minute)
		for _, n := range images {
			must(t, r.src.DeleteManifest(t.Context(), "app", n.Desc.Digest))
			r.hear(t, r.change(n.Desc.Digest))
			time.Sleep(time.Second)
		}
		r.hear(t, r.change(r.img.Desc.Digest)) // is still at the source: costs nothing of the cap
		time.Sleep(grace)
		for runs, want := range []float64{4, 2, 0} {
			r.once(t)
			var there []bool
			for _, n := range images {
				there = append(there, r.there(t, n))
			}
			deleted := min(2*(runs+1), len(images))
			if slices.Contains(there[:deleted], true) || slices.Contains(there[deleted:], false) {
				t.Errorf("after run %d: %v", runs+1, there)
			}
			if got := r.results(t)["waiting"]; got != want {
				t.Errorf("after run %d: %v wait, want %v", runs+1, got, want)
			}
		}
		if got := r.results(t); got["deleted"] != 5 || got["still_there"] != 1 || r.left(t) != 0 {
			t.Errorf("%v, %d left", got, r.left(t))
		}
	})
}

// A deletion that failed is tried again, whether or not it took effect; one that the destination refuses is given up at last.
func TestReaperFaults(t *testing.T) {
	for _, applied := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := reap(t)
			hook := registrytest.FailNth("delete", 1, registry.Errorf(registry.Unavailable, "connection reset"))
			if r.to.Before = hook; applied {
				r.to.Before, r.to.After = nil, hook
			}
			must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
			r.hear(t, r.change(r.img.Desc.Digest))
			time.Sleep(grace)
			r.once(t)
			if r.there(t, r.img) == applied || r.left(t) != 1 {
				t.Fatalf("applied %v: there %v, %d left", applied, r.there(t, r.img), r.left(t))
			}
			for d, err := range r.q.Deletions(t.Context()) {
				if must(t, err); d.Attempts != 1 || d.Err != "connection reset" {
					t.Errorf("noted: %+v", d)
				}
			}
			r.once(t)
			if got := r.results(t); r.there(t, r.img) || r.left(t) != 0 || got["failed"] != 1 || got["deleted"] != 1 {
				t.Errorf("applied %v: %v, %d left", applied, got, r.left(t))
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		r.to.Before = registrytest.FailNth("delete", 0, registry.Errorf(registry.Invalid, "referenced by an index"))
		must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
		r.hear(t, r.change(r.img.Desc.Digest))
		time.Sleep(grace)
		for range 30 {
			r.once(t)
		}
		if got := r.results(t); got["failed"] != 23 || got["refused"] != 1 || r.left(t) != 0 || !r.there(t, r.img) {
			t.Errorf("refused: %v, %d left", got, r.left(t))
		}
	})
}

// What is pushed again in the moment between question and deletion is copied again.
func TestReaperRestores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
		r.hear(t, r.change(r.img.Desc.Digest))
		time.Sleep(grace)
		r.to.Before = func(c registrytest.Call) error {
			if c.Op == "delete" {
				registrytest.Push(t, r.src, "app", "v1", r.img)
			}
			return nil
		}
		r.once(t)
		r.settle(time.Minute)
		has(t, r.dst, "app", r.img)
	})
}

// The deletions survive a restart, with their age.
func TestDeletionsAreDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		k := contentJob("app", d1).Key
		at := time.Now().UTC()
		put(t, q, tagJob("app", "v1", d1, at))
		must(t, q.PutDeletions(t.Context(), replicate.Deletion{Key: k, At: at, Explicit: true}))
		must(t, q.Close())
		time.Sleep(time.Hour)
		q = openQueue(t, path)
		must(t, q.PutDeletions(t.Context(), replicate.Deletion{Key: k, At: at}))
		var got []replicate.Deletion
		for d, err := range q.Deletions(t.Context()) {
			must(t, err)
			got = append(got, d)
		}
		if diff := cmp.Diff([]replicate.Deletion{{Key: k, At: at, Heard: at, Explicit: true}}, got); diff != "" {
			t.Errorf("after a restart (-want +got):\n%s", diff)
		}
		if err := q.PutDeletions(t.Context(), replicate.Deletion{Key: tagJob("app", "v1", "", at).Key}); registry.ClassOf(err) != registry.Invalid {
			t.Errorf("of a tag: %v", err)
		}
	})
	for _, c := range []registry.Change{{Repo: "app", Digest: d1}, {Repo: "app", Tag: "v1", Op: registry.Delete}, {Repo: "A", Digest: d1, Op: registry.Delete}} {
		if d, ok := replicate.DeletionOf("m", "d", c); ok {
			t.Errorf("%+v became %+v", c, d)
		}
	}
}

// The reaper comes about every hour, and not at the start.
func TestReaperRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reap(t)
		must(t, r.src.DeleteManifest(t.Context(), "app", r.img.Desc.Digest))
		r.hear(t, r.change(r.img.Desc.Digest))
		time.Sleep(grace)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- replicate.NewReaper(r.o).Run(ctx) }()
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		if !r.there(t, r.img) {
			t.Error("deleted right after the start")
		}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if r.there(t, r.img) {
			t.Error("not deleted after an hour")
		}
		cancel()
		must(t, <-ended)
	})
}
