package replicate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Deletion is the durable memory that an image is said to be gone from the source. What becomes of it is for a Reaper.
type Deletion struct {
	Key                // of content
	At       time.Time // when the source says that it happened
	Heard    time.Time // when it was first heard of
	Explicit bool      // somebody deleted it; else it may have expired
	Attempts int       // at deleting it at the destination
	Err      string    // of the last of these
}

// The file: bucket "deletions" holds a storedDeletion as JSON under Key.encode. What may change: see jobsBucket.
const deletionsBucket = "deletions"

// sameDeletion is how far apart two reports of one deletion are at most: CloudTrail's comes late and has its own time.
const sameDeletion = 15 * time.Minute

type storedDeletion struct {
	At       time.Time `json:"at"`
	Heard    time.Time `json:"heard"`
	Explicit bool      `json:"explicit,omitempty"`
	Attempts int       `json:"attempts,omitempty"`
	Err      string    `json:"error,omitempty"`
}

func decodeDeletion(key, value []byte) (Deletion, error) {
	k, err := decodeKey(key)
	if err != nil {
		return Deletion{}, err
	}
	var s storedDeletion
	if err := json.Unmarshal(value, &s); err != nil {
		return Deletion{}, fmt.Errorf("stored deletion %v: %w", k, err)
	}
	return Deletion{k, s.At, s.Heard, s.Explicit, s.Attempts, s.Err}, nil
}

func (d Deletion) store(b *bolt.Bucket) error {
	v, err := json.Marshal(storedDeletion{d.At, d.Heard, d.Explicit, d.Attempts, d.Err})
	if err != nil {
		return err
	}
	return b.Put(d.Key.encode(), v)
}

// DeletionOf returns what c says is gone; false: it says nothing of that kind, or not of which image.
func DeletionOf(mirror, destination string, c registry.Change) (Deletion, bool) {
	d := Deletion{Key: Key{Mirror: mirror, Destination: destination, Repo: c.Repo, Digest: c.Digest}, At: c.At, Explicit: c.Explicit}
	return d, c.Op == registry.Delete && d.Validate() == nil
}

// PutDeletions writes down what is said to be gone, all or none, and returns when that is durable. Of each only Key, At and
// Explicit are looked at. What is of no concern, neither brought nor in a repository that there is a job for, is left out: events
// can be forged. What was heard of before stays as old as it is, so that repetitions do not put it off; but an image can be
// pushed and deleted anew.
func (q *Queue) PutDeletions(ctx context.Context, deletions ...Deletion) error {
	for _, d := range deletions {
		if err := d.Validate(); err != nil || d.Tag != "" {
			return errors.Join(registry.Errorf(registry.Invalid, "deletion of %v: no content", d.Key), err)
		}
	}
	if err := ctx.Err(); err != nil || len(deletions) == 0 {
		return err
	}
	now, busy := time.Now(), sync.OnceValue(q.busy)
	return q.inFile(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(deletionsBucket))
		for _, d := range deletions {
			if ours, err := brought(tx, d.Key); err != nil {
				return err
			} else if !ours && !busy()[Key{Mirror: d.Mirror, Destination: d.Destination, Repo: d.Repo}] {
				continue
			}
			n := Deletion{Key: d.Key, At: d.At, Heard: now, Explicit: d.Explicit}
			if v := b.Get(d.Key.encode()); v != nil {
				old, err := decodeDeletion(d.Key.encode(), v)
				if err != nil {
					return err
				}
				if d.At.Sub(old.At) < sameDeletion {
					n = old
					n.Explicit = old.Explicit || d.Explicit
				}
			}
			if err := n.store(b); err != nil {
				return fmt.Errorf("deletion %v: %w", d.Key, err)
			}
		}
		return nil
	})
}

// working reports whether there is a job, not given up, that may bring content k.
func (q *Queue) working(k Key) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for o, e := range q.entries {
		if o.Mirror == k.Mirror && o.Destination == k.Destination && o.Repo == k.Repo && (o.Digest == k.Digest || e.job.Hint == k.Digest) && e.job.State == Pending {
			return true
		}
	}
	return false
}

// busy returns the repositories that there are jobs for.
func (q *Queue) busy() map[Key]bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	busy := make(map[Key]bool)
	for k := range q.entries {
		busy[Key{Mirror: k.Mirror, Destination: k.Destination, Repo: k.Repo}] = true
	}
	return busy
}

// inFile has f edit the file in the next write.
func (q *Queue) inFile(f func(*bolt.Tx) error) error {
	return q.commit(func(b *batch) { b.also = append(b.also, f) })
}

// Deletions yields what is said to be gone and was not dealt with yet, as of the call, by key. A failing iteration yields
// its error last.
func (q *Queue) Deletions(ctx context.Context) iter.Seq2[Deletion, error] {
	return func(yield func(Deletion, error) bool) {
		var all []Deletion
		err := ctx.Err()
		if err == nil {
			err = q.db.View(func(tx *bolt.Tx) error {
				return tx.Bucket([]byte(deletionsBucket)).ForEach(func(k, v []byte) error {
					d, err := decodeDeletion(k, v)
					all = append(all, d)
					return err
				})
			})
		}
		if err != nil {
			yield(Deletion{}, internal(err))
			return
		}
		for _, d := range all {
			if !yield(d, nil) {
				return
			}
		}
	}
}

// failDeletion notes why d was not dealt with.
func (q *Queue) failDeletion(d Deletion, cause error) error {
	if d.Err = cause.Error(); len(d.Err) > maxErr {
		d.Err = strings.ToValidUTF8(d.Err[:maxErr], "")
	}
	return q.inFile(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(deletionsBucket))
		if b.Get(d.Key.encode()) == nil {
			return nil
		}
		return d.store(b)
	})
}

// endDeletion forgets a deletion that was dealt with. If the image is gone from the destination its receipts go in the same
// write: what comes back one day has not expired.
func (q *Queue) endDeletion(k Key, gone bool) error {
	return q.inFile(func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte(deletionsBucket)).Delete(k.encode()); err != nil || !gone {
			return err
		}
		if err := tx.Bucket([]byte(bringingBucket)).Delete(k.encode()); err != nil {
			return err
		}
		receipts := tx.Bucket([]byte(receiptsBucket))
		if err := receipts.Delete(k.encode()); err != nil {
			return err
		}
		tags, err := tagReceipts(receipts, k)
		for _, key := range tags {
			err = errors.Join(err, receipts.Delete(key))
		}
		return err
	})
}

// tagReceipts returns the keys of the tags that named content k.
func tagReceipts(receipts *bolt.Bucket, k Key) (keys [][]byte, err error) {
	prefix := Key{Mirror: k.Mirror, Destination: k.Destination, Repo: k.Repo, Tag: "x"}.encode()
	prefix = prefix[:len(prefix)-1]
	c := receipts.Cursor()
	for key, v := c.Seek(prefix); bytes.HasPrefix(key, prefix); key, v = c.Next() {
		r, err := decodeReceipt(key, v)
		if err != nil {
			return nil, err
		}
		if r.Digest == k.Digest {
			keys = append(keys, slices.Clone(key))
		}
	}
	return keys, nil
}
