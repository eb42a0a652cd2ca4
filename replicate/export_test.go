package replicate

import (
	"context"

	bolt "go.etcd.io/bbolt"
)

// LookedAt returns how many keys a page of images looks at.
func (q *Queue) LookedAt(ctx context.Context, o ImageQuery) (images, keys int, err error) {
	rows, _, keys, err := q.images(ctx, o)
	return len(rows), keys, err
}

// Notes returns how many notes the file holds of what was about to be brought.
func (q *Queue) Notes() (n int) {
	_ = q.db.View(func(tx *bolt.Tx) error { // a closed file has none
		n = tx.Bucket([]byte(bringingBucket)).Stats().KeyN
		return nil
	})
	return n
}
