package replicate_test

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func newBudget(t *testing.T, q *replicate.Queue, bytes int64) *replicate.Budget {
	t.Helper()
	b, err := replicate.NewBudget(replicate.BudgetOptions{Mirror: "m", Bytes: bytes, Queue: q})
	must(t, err)
	return b
}

// readLayer reads the layer of n through r, in two ranges.
func readLayer(t *testing.T, r registry.Reader, n registrytest.Node) {
	t.Helper()
	c, err := r.Open(t.Context(), registry.Object{Repo: "app", Kind: registry.Blob, Digest: n.Blobs[1].Desc.Digest}, registry.Range{Length: 10})
	must(t, err)
	again, err := c.From.Open(t.Context(), registry.Object{Repo: "app", Kind: registry.Blob, Digest: n.Blobs[1].Desc.Digest}, registry.Range{Offset: 10, Length: -1})
	must(t, err)
	for _, c := range []*registry.Content{c, again} {
		_, err := io.Copy(io.Discard, c)
		must(t, err)
		must(t, c.Close())
	}
}

// readManifest reads what app:tag names through r.
func readManifest(t *testing.T, r registry.Reader, tag string) {
	t.Helper()
	d, err := r.Resolve(t.Context(), "app", tag)
	must(t, err)
	c, err := r.Open(t.Context(), registry.Object{Repo: "app", Kind: registry.Manifest, Digest: d.Digest}, registry.Whole)
	must(t, err)
	_, err = io.Copy(io.Discard, c)
	must(t, err)
	must(t, c.Close())
}

// A day's budget counts every byte read from the source, holds sweep and backfill until the next day, and survives a restart.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		src, n := mem.New(), registrytest.Image(1, 100)
		registrytest.Push(t, src, "app", "v1", n)
		b := newBudget(t, q, 150)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		spent := func(b *replicate.Budget, l registry.Lane) bool { _, s := b.Spent(l); return s }
		r := b.Reader(src)
		readLayer(t, r, n)
		if spent(b, registry.LaneSweep) {
			t.Error("spent after 100 of 150 bytes")
		}
		time.Sleep(time.Minute)
		readLayer(t, r, n)
		if spent(b, registry.LaneClient) || spent(b, registry.LaneEvent) || !spent(b, registry.LaneSweep) || !spent(b, registry.LaneBackfill) {
			t.Error("after 200 of 150 bytes: not just sweep and backfill wait")
		}
		stop()
		must(t, <-ended)
		must(t, q.Close())

		q = openQueue(t, path)
		b = newBudget(t, q, 150)
		if !spent(b, registry.LaneSweep) {
			t.Error("forgotten by a restart")
		}
		if other, err := replicate.NewBudget(replicate.BudgetOptions{Mirror: "other", Bytes: 150, Queue: q}); err != nil || spent(other, registry.LaneSweep) {
			t.Errorf("another mirror's budget is spent, %v", err)
		}
		until, _ := b.Spent(registry.LaneSweep)
		if y, m, d := time.Now().UTC().Date(); !until.Equal(time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("until %v", until)
		}
		time.Sleep(time.Until(until))
		if spent(b, registry.LaneSweep) {
			t.Error("the next day it is still spent")
		}
		var none *replicate.Budget
		if none.Reader(src) != registry.Reader(src) || spent(none, registry.LaneBackfill) {
			t.Error("no budget has bounds")
		}
	})
}

// A clock that was a year ahead does not hold up a year's sweeps.
func TestBudgetOfAWrongClock(t *testing.T) {
	q := newQueue(t)
	src := mem.New()
	registrytest.Push(t, src, "app", "v1", registrytest.Image(1, 100))
	ahead := 365 * 24 * time.Hour
	b, err := replicate.NewBudget(replicate.BudgetOptions{Mirror: "m", Bytes: 1, Queue: q, Now: func() time.Time { return time.Now().Add(ahead) }})
	must(t, err)
	readManifest(t, b.Reader(src), "v1")
	if _, spent := b.Spent(registry.LaneSweep); !spent {
		t.Error("not spent")
	}
	ahead = 0
	if _, spent := b.Spent(registry.LaneSweep); spent {
		t.Error("spent on a day that has not come")
	}
}

// Workers leave the sweep's jobs to the next day, in their order, and do an event's.
func TestWorkersKeepToTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		src, dst := mem.New(), mem.New()
		b := newBudget(t, q, 1)
		w := replicate.NewWorkers(replicate.Options{Queue: q, Concurrency: 1, Mirrors: map[string]replicate.Mirror{"m": {
			Source: b.Reader(src), Budget: b, Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst}}}}})
		var jobs []replicate.Job
		for i := range 5 {
			tag := fmt.Sprint("v", 4-i)
			registrytest.Push(t, src, "app", tag, registrytest.Image(uint64(i), 100))
			j := tagJob("app", tag, "", time.Now().Add(time.Duration(-i)*time.Hour)) // v0 is the oldest
			if j.Lane = registry.LaneSweep; i == 4 {
				j.Lane = registry.LaneEvent
			}
			jobs = append(jobs, j)
		}
		put(t, q, jobs...)
		readManifest(t, b.Reader(src), "v0")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		synctest.Wait()
		tags := func() (all []string) {
			for tag, err := range dst.Tags(t.Context(), "app") {
				must(t, err)
				all = append(all, tag)
			}
			return all
		}
		if got := tags(); len(got) != 1 || got[0] != "v0" {
			t.Errorf("with a spent budget %v is there, want the event's v0", got)
		}
		until, _ := b.Spent(registry.LaneSweep)
		time.Sleep(time.Until(until) + time.Second)
		synctest.Wait()
		if got := tags(); len(got) != 2 || got[1] != "v1" {
			t.Errorf("the next day %v is there, want the oldest", got)
		}
		time.Sleep(4 * 24 * time.Hour)
		synctest.Wait()
		if got := tags(); len(got) != 5 {
			t.Errorf("a week later %v is there", got)
		}
		stop()
		must(t, <-ended)
	})
}

// What the sweep's job waits for the next day with is done at once when an event, or a pull that missed it, asks for it.
func TestEventsDoNotWaitForTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		src, dst := mem.New(), mem.New()
		b := newBudget(t, q, 1)
		w := replicate.NewWorkers(replicate.Options{Queue: q, Concurrency: 1, Mirrors: map[string]replicate.Mirror{"m": {
			Source: b.Reader(src), Budget: b, Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst}}}}})
		n := registrytest.Image(1, 100)
		registrytest.Push(t, src, "app", "v1", n)
		j := tagJob("app", "v1", n.Desc.Digest, time.Now())
		j.Lane = registry.LaneSweep
		put(t, q, j)
		readManifest(t, b.Reader(src), "v1")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		synctest.Wait()
		if _, err := dst.Resolve(t.Context(), "app", "v1"); err == nil {
			t.Error("the sweep did not wait")
		}
		j.Lane = registry.LaneEvent
		put(t, q, j)
		synctest.Wait()
		names(t, dst, "app", "v1", n)
		stop()
		must(t, <-ended)
	})
}

// slowly takes a second to say what a tag names.
type slowly struct{ registry.Reader }

func (s slowly) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	time.Sleep(time.Second)
	return s.Reader.Resolve(ctx, repo, tag)
}

// The oldest receipts give way.
func TestReceiptsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		q.MaxReceipts = 50
		src, dst := mem.New(), mem.New()
		for i := range 200 {
			n := registrytest.Image(uint64(i), 10)
			repo := fmt.Sprintf("app-%d", i%4)
			registrytest.Push(t, src, repo, fmt.Sprint("v", i), n)
			registrytest.Push(t, dst, repo, fmt.Sprint("v", i), n)
			put(t, q, tagJob(repo, fmt.Sprint("v", i), "", time.Now()))
		}
		w := replicate.NewWorkers(replicate.Options{Queue: q, Concurrency: 1,
			Mirrors: map[string]replicate.Mirror{"m": {Source: src, Tags: slowly{src}, Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst}}}}})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(time.Hour)
		now := time.Now().Add(-time.Hour + 100*time.Second) // when the last was done, by two workers
		stop()
		must(t, <-ended)
		count := func() (n int, oldest time.Time) {
			for r, err := range q.Receipts(t.Context()) {
				must(t, err)
				if n++; oldest.IsZero() || r.PullableAt.Before(oldest) {
					oldest = r.PullableAt
				}
			}
			return n, oldest
		}
		if n, first := count(); n > 54 || n < 40 || first.Before(now.Add(-26*time.Second)) {
			t.Errorf("%d receipts are kept, the first of %v", n, now.Sub(first))
		}
		if q.Pending().Waiting() > 0 {
			t.Error("not all jobs were done")
		}
		s := &replicate.Sweep{Mirror: "m", Destination: "d", Source: src, Target: dst, Queue: q}
		p := plan(t, s) // 400 found at once
		if n, _ := count(); len(p.Differences) > 0 || n > 50 || n < 40 {
			t.Errorf("%d differences, %d receipts", len(p.Differences), n)
		}
		must(t, q.Close())
		q = openQueue(t, path)
		q.MaxReceipts = 20
		s.Queue = q
		plan(t, s)
		if n, _ := count(); n > 20 {
			t.Errorf("after a restart %d receipts are kept", n)
		}
	})
}
