package replicate

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	maxReceipts = 500_000   // the default of Queue.MaxReceipts: about 150 MiB of the file
	maxTrails   = 1_000_000 // the default of Queue.MaxTrails: about 250 MiB of the file
)

// trimReceipts drops the oldest beyond MaxReceipts. What is forgotten is that an image was at a destination: should its
// lifecycle remove it, a sweep brings it back.
func (q *Queue) trimReceipts(ctx context.Context) error {
	return q.trim(ctx, &q.receipts, receiptsBucket, cmp.Or(q.MaxReceipts, maxReceipts), func(k, v []byte) (time.Time, error) {
		r, err := decodeReceipt(k, v)
		return r.PullableAt, err
	})
}

// trimNotes drops the oldest beyond MaxReceipts: what came along with an image has no receipt that would end its note. What is
// forgotten is that this queue brought it, and so it is not deleted with the source's.
func (q *Queue) trimNotes(ctx context.Context) error {
	return q.trim(ctx, &q.notes, bringingBucket, cmp.Or(q.MaxReceipts, maxReceipts), func(_, v []byte) (at time.Time, err error) {
		err = at.UnmarshalText(v)
		return at, err
	})
}

// trimTrails drops the oldest beyond MaxTrails.
func (q *Queue) trimTrails(ctx context.Context) error {
	return q.trim(ctx, &q.trails, trailsBucket, cmp.Or(q.MaxTrails, maxTrails), func(k, v []byte) (time.Time, error) {
		s, err := decodeTrail(k, v)
		return s.At, err
	})
}

// kept is about how much a bucket holds.
type kept struct {
	atomic.Int64
	trimming sync.Mutex
}

// count counts what the file has, once.
func (n *kept) count(tx *bolt.Tx, bucket string) {
	n.Store(int64(tx.Bucket([]byte(bucket)).Stats().KeyN))
}

// trim drops the oldest of a bucket if it holds more than limit, a tenth more than needed, so that it is rarely done.
func (q *Queue) trim(ctx context.Context, n *kept, bucket string, limit int, age func(k, v []byte) (time.Time, error)) error {
	if n.Load() <= int64(limit) || !n.trimming.TryLock() {
		return nil
	}
	defer n.trimming.Unlock()
	var ages []time.Time
	err := q.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucket)).ForEach(func(k, v []byte) error {
			at, err := age(k, v)
			ages = append(ages, at)
			return cmp.Or(err, ctx.Err())
		})
	})
	if err != nil {
		return internal(err)
	}
	n.Store(int64(len(ages))) // others may have dropped some
	if len(ages) <= limit {
		return nil
	}
	slices.SortFunc(ages, time.Time.Compare)
	excess := min(len(ages)-limit+limit/10, len(ages))
	last := ages[excess-1]                 // the youngest to go
	same := excess - olderThan(ages, last) // of those as old, so many go
	var after []byte
	for done := false; !done; {
		err := q.inFile(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(bucket))
			c := b.Cursor()
			k, v := c.Seek(after)
			var drop [][]byte
			for i := 0; k != nil && i < noteBatch; i++ {
				at, err := age(k, v)
				if err != nil {
					return err
				}
				switch older := at.Compare(last); {
				case older == 0 && same > 0:
					same--
					fallthrough
				case older < 0:
					drop = append(drop, bytes.Clone(k))
				}
				k, v = c.Next()
			}
			after, done = bytes.Clone(k), k == nil
			for _, k := range drop { // a cursor does not survive a deletion
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			n.Add(-int64(len(drop)))
			return nil
		})
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// olderThan counts what of sorted is before t.
func olderThan(sorted []time.Time, t time.Time) int {
	n, _ := slices.BinarySearchFunc(sorted, t, time.Time.Compare)
	return n
}
