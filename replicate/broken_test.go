package replicate

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// When the file cannot be written, nothing of the batch is seen, and a job that was done or failed comes back after a
// delay: it may be repeated, but is neither lost nor repeated in a hot loop.
func TestFileBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := OpenQueue(filepath.Join(t.TempDir(), "queue.db"))
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		j := Job{Key: Key{Mirror: "m", Destination: "d", Repo: "app", Digest: digest.FromString("1")}}
		if err := q.Put(t.Context(), j); err != nil {
			t.Fatal(err)
		}
		if j, err = q.Lease(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := q.db.Close(); err != nil { // every write fails from here on
			t.Fatal(err)
		}
		other := Job{Key: Key{Mirror: "m", Destination: "d", Repo: "app", Tag: "v1"}}
		if err := q.Put(t.Context(), other); registry.ClassOf(err) != registry.Internal || q.Pending().Waiting() != 1 {
			t.Errorf("put: %v, %d jobs", err, q.Pending().Waiting())
		}
		for i, end := range []func() error{
			func() error { return q.Done(j) },
			func() error { _, err := q.Fail(j, registry.Invalid); return err },
			func() error { return q.Done(j) },
			func() error { return q.Done(j) },
		} {
			name, delay := fmt.Sprint("end ", i), q.minDelay()<<i
			before := time.Now()
			if err := end(); registry.ClassOf(err) != registry.Internal {
				t.Errorf("%s: %v", name, err)
			}
			if j, err = q.Lease(t.Context()); err != nil || time.Since(before) > delay || time.Since(before) < delay/2 || j.Attempts != 0 {
				t.Errorf("%s: leased again after %v: %+v %v", name, time.Since(before), j, err)
			}
		}
	})
}

// A put that arrives while a batch with the same key's lease is written is not forgotten; nor is one in the same batch.
func TestBatchOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := Key{Mirror: "m", Destination: "d", Repo: "app", Tag: "v1"}
		put := func(b *batch) {
			d := b.at(k)
			d.put, d.again = true, d.leased && !d.ended
			d.job, d.exists = Job{Key: k}, true
		}
		done := func(b *batch) {
			d := b.at(k)
			if d.ended = true; !d.again {
				d.exists = false
			}
		}
		for name, edits := range map[string][]func(*batch){"put, done": {put, done}, "done, put": {done, put}} {
			q, err := OpenQueue(filepath.Join(t.TempDir(), "queue.db"))
			if err != nil {
				t.Fatal(err)
			}
			if err := q.Put(t.Context(), Job{Key: k}); err != nil {
				t.Fatal(err)
			}
			if _, err := q.Lease(t.Context()); err != nil {
				t.Fatal(err)
			}
			var all []*change
			for _, e := range edits {
				all = append(all, &change{edit: e})
			}
			if err := q.write(all); err != nil {
				t.Fatal(err)
			}
			if c := q.Pending(); c.Waiting() != 1 || c.Leased != 0 {
				t.Errorf("%s in one batch: %+v", name, c)
			}
			q.Close()
		}
	})
}
