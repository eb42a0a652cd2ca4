package replicate

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// maxReceipts is the default of Queue.MaxReceipts: about 150 MiB of the file.
const maxReceipts = 500_000

// countReceipts counts those in the file, once.
func (q *Queue) countReceipts(tx *bolt.Tx) {
	q.receipts.Store(int64(tx.Bucket([]byte(receiptsBucket)).Stats().KeyN))
}

// trim drops the oldest receipts if there are more than MaxReceipts, a tenth more than needed, so that it is rarely done. What
// is forgotten is that an image was at a destination: should its lifecycle remove it, a sweep brings it back.
func (q *Queue) trim(ctx context.Context) error {
	limit := cmp.Or(q.MaxReceipts, maxReceipts)
	if q.receipts.Load() <= int64(limit) || !q.trimming.TryLock() {
		return nil
	}
	defer q.trimming.Unlock()
	var ages []time.Time
	for r, err := range q.Receipts(ctx) {
		if err != nil {
			return err
		}
		ages = append(ages, r.PullableAt)
	}
	q.receipts.Store(int64(len(ages))) // others may have dropped some
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
			b := tx.Bucket([]byte(receiptsBucket))
			c := b.Cursor()
			k, v := c.Seek(after)
			var drop [][]byte
			for n := 0; k != nil && n < noteBatch; n++ {
				r, err := decodeReceipt(k, v)
				if err != nil {
					return err
				}
				switch age := r.PullableAt.Compare(last); {
				case age == 0 && same > 0:
					same--
					fallthrough
				case age < 0:
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
			q.receipts.Add(-int64(len(drop)))
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
