package replicate

import (
	"context"
	"time"

	bolt "go.etcd.io/bbolt"
)

// The file: bucket "bringing" holds, under Key.encode of content, that this queue's workers were about to write a manifest that the
// destination lacked: the value is when, as time.Time's text. It goes when there is a receipt, or too many are younger. Without it a
// process that dies between the write and its receipt would find its own copy later, take it for somebody else's, and never delete it.
const bringingBucket = "bringing"

// bringing writes down that content k is about to be brought, and returns when that is durable.
func (q *Queue) bringing(ctx context.Context, k Key) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	known := false
	err := q.db.View(func(tx *bolt.Tx) error {
		known = tx.Bucket([]byte(bringingBucket)).Get(k.encode()) != nil
		return nil
	})
	if err != nil || known {
		return internal(err)
	}
	at, err := time.Now().UTC().MarshalText()
	if err != nil {
		return internal(err)
	}
	if err := q.inFile(func(tx *bolt.Tx) error { return tx.Bucket([]byte(bringingBucket)).Put(k.encode(), at) }); err != nil {
		return err
	}
	q.notes.Add(1) // what went since is found out when there seem to be too many
	return q.trimNotes(ctx)
}

// brought reports whether this queue's workers brought content k.
func (q *Queue) brought(k Key) (ours bool, err error) {
	err = q.db.View(func(tx *bolt.Tx) error {
		ours, err = brought(tx, k)
		return err
	})
	return ours, internal(err)
}

// brought reports whether there is a receipt which says that this queue brought the content, or the note that it was about to.
func brought(tx *bolt.Tx, k Key) (bool, error) {
	if tx.Bucket([]byte(bringingBucket)).Get(k.encode()) != nil {
		return true, nil
	}
	v := tx.Bucket([]byte(receiptsBucket)).Get(k.encode())
	if v == nil {
		return false, nil
	}
	r, err := decodeReceipt(k.encode(), v)
	return !r.Found, err
}
