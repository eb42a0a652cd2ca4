package replicate

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Depth is what waits in a lane.
type Depth struct {
	Jobs   int
	Oldest time.Time // the earliest Created; zero when there is none
}

// Counts is a queue at a glance.
type Counts struct {
	Pending  [lanes]Depth // by registry.Lane; leased jobs included, for they are not done
	Leased   int
	Dead     int
	Conflict int
	Bytes    int64 // of the pending and leased jobs, where known
}

// Waiting returns how many jobs are pending or leased in all lanes.
func (c Counts) Waiting() (n int) {
	for _, d := range c.Pending {
		n += d.Jobs
	}
	return n
}

// Pending counts the jobs.
func (q *Queue) Pending() Counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	var c Counts
	for _, e := range q.entries {
		switch e.job.State {
		case Dead:
			c.Dead++
		case Conflict:
			c.Conflict++
		default:
			c.Bytes += e.job.Bytes
			d := &c.Pending[e.job.Lane]
			if d.Jobs++; d.Oldest.IsZero() || e.job.Created.Before(d.Oldest) {
				d.Oldest = e.job.Created
			}
		}
		if e.leased {
			c.Leased++
		}
	}
	return c
}

// Jobs yields every job as of the call, by key. The only error is ctx's.
func (q *Queue) Jobs(ctx context.Context) iter.Seq2[Job, error] {
	return q.jobs(ctx, func(Job) bool { return true })
}

// Dead yields the jobs that wait for an operator: dead and conflict. The only error is ctx's.
func (q *Queue) Dead(ctx context.Context) iter.Seq2[Job, error] {
	return q.jobs(ctx, func(j Job) bool { return j.State == Dead || j.State == Conflict })
}

func (q *Queue) jobs(ctx context.Context, want func(Job) bool) iter.Seq2[Job, error] {
	return func(yield func(Job, error) bool) {
		var found []Job
		q.mu.Lock()
		for _, e := range q.entries {
			j := e.job
			if e.leased {
				j.State = Leased
			}
			if want(j) {
				found = append(found, j)
			}
		}
		q.mu.Unlock()
		slices.SortFunc(found, func(a, b Job) int { return compareKeys(a.Key, b.Key) })
		for _, j := range found {
			if err := ctx.Err(); err != nil {
				yield(Job{}, err)
				return
			}
			if !yield(j, nil) {
				return
			}
		}
	}
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Mirror, b.Mirror), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Repo, b.Repo),
		cmp.Compare(a.Tag, b.Tag), cmp.Compare(a.Digest, b.Digest))
}

// Receipt returns the receipt of content; ok is false when there is none.
func (q *Queue) Receipt(k Key) (r Receipt, ok bool, err error) {
	err = q.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket([]byte(receiptsBucket)).Get(k.encode())
		if v == nil {
			return nil
		}
		ok = true
		r, err = decodeReceipt(k.encode(), v)
		return err
	})
	return r, ok, internal(err)
}

// Receipts yields all receipts in the order of their keys. A failing iteration yields its error last. The iteration holds
// a read transaction: the file grows while it lasts, so the caller does not block in it.
func (q *Queue) Receipts(ctx context.Context) iter.Seq2[Receipt, error] {
	return func(yield func(Receipt, error) bool) {
		stopped := false
		err := q.db.View(func(tx *bolt.Tx) error {
			c := tx.Bucket([]byte(receiptsBucket)).Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if err := ctx.Err(); err != nil {
					return err
				}
				r, err := decodeReceipt(k, v)
				if err != nil {
					return err
				}
				if !yield(r, nil) {
					stopped = true
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(Receipt{}, internal(err))
		}
	}
}

func internal(err error) error {
	if err == nil || registry.ClassOf(err) != registry.Internal {
		return err
	}
	return registry.Errorf(registry.Internal, "queue: read: %w", err)
}

// Job returns the job of key k; ok is false when there is none.
func (q *Queue) Job(k Key) (j Job, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[k]
	if e == nil {
		return Job{}, false
	}
	if j = e.job; e.leased {
		j.State = Leased
	}
	return j, true
}

// noteBatch bounds how many receipts one transaction reads or writes.
const noteBatch = 1000

// note files receipts of what somebody else brought; those that are there already stay as they are.
func (q *Queue) note(ctx context.Context, receipts []Receipt) error {
	for some := range slices.Chunk(receipts, noteBatch) {
		if err := ctx.Err(); err != nil {
			return err
		}
		var fresh []Receipt
		err := q.db.View(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(receiptsBucket))
			for _, r := range some {
				if !sameReceipt(b.Get(r.Key.encode()), r) {
					fresh = append(fresh, r)
				}
			}
			return nil
		})
		if err == nil && len(fresh) > 0 {
			err = q.commit(func(b *batch) {
				for _, r := range fresh {
					if _, ok := b.receipts[r.Key]; !ok { // a worker in the same batch knows better
						b.receipts[r.Key] = r
					}
				}
			})
		}
		if err != nil {
			return internal(err)
		}
	}
	return q.trimReceipts(ctx)
}
