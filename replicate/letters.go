package replicate

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Letters are bounded, for whoever may send events may send nonsense. The oldest give way.
const (
	// MaxLetters is how many dead letters are kept.
	MaxLetters = 1000
	// MaxLetterBody is how many bytes of one are kept: all of what SQS delivers at most. An event of ECR has about 1 KiB.
	MaxLetterBody = 1 << 20
	// maxLetterBytes is the default of Queue.MaxLetterBytes.
	maxLetterBytes = 128 << 20
)

// Letter is a message about a mirror that could not become a job: malformed, unknown, or of a registry that the mirror does
// not have. An operator reads it; only ForgetLetter, or newer ones beyond the bounds, end it.
type Letter struct {
	ID     string // of mirror and body: a message that is delivered again is the same letter
	Mirror string
	Reason string
	First  time.Time // when it came
	Last   time.Time // and when it last came again
	Times  int
	Size   int    // of the message in bytes
	Body   []byte // its first MaxLetterBody bytes
}

// LetterCounts is what became of the dead letters.
type LetterCounts struct {
	Kept    int
	Dropped uint64 // that gave way to newer ones, since the file was created
}

// The file: bucket "letters" holds a storedLetter as JSON under its number (8 bytes, big-endian, as they came); "letterIDs"
// holds that number under Letter.ID, and as its sequence how many were dropped.
const (
	lettersBucket   = "letters"
	letterIDsBucket = "letterIDs"
)

type storedLetter struct {
	ID     string    `json:"id"`
	Mirror string    `json:"mirror"`
	Reason string    `json:"reason"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Times  int       `json:"times"`
	Size   int       `json:"size"`
	Body   []byte    `json:"body"`
}

func letterID(mirror string, body []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00", mirror)
	h.Write(body)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// PutLetter keeps a message and why it is dead, and returns when that is durable. ctx does not interrupt a write that has
// begun.
func (q *Queue) PutLetter(ctx context.Context, mirror string, body []byte, reason error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	text := reason.Error()
	if len(text) > maxErr {
		text = strings.ToValidUTF8(text[:maxErr], "")
	}
	now := time.Now()
	l := storedLetter{ID: letterID(mirror, body), Mirror: mirror, Reason: text, First: now, Last: now, Times: 1,
		Size: len(body), Body: body[:min(len(body), MaxLetterBody)]}
	most := cmp.Or(q.MaxLetterBytes, maxLetterBytes)
	return q.commit(func(b *batch) {
		b.also = append(b.also, func(tx *bolt.Tx) error {
			if err := l.put(tx, most); err != nil {
				return fmt.Errorf("letter %s: %w", l.ID, err)
			}
			return nil
		})
	})
}

func (l storedLetter) put(tx *bolt.Tx, most int) error {
	letters, ids := tx.Bucket([]byte(lettersBucket)), tx.Bucket([]byte(letterIDsBucket))
	number := ids.Get([]byte(l.ID))
	if number == nil {
		if err := makeRoom(letters, ids, base64.StdEncoding.EncodedLen(len(l.Body)), most); err != nil {
			return err
		}
		n, err := letters.NextSequence()
		if err != nil {
			return err
		}
		number = binary.BigEndian.AppendUint64(nil, n)
		if err := ids.Put([]byte(l.ID), number); err != nil {
			return err
		}
	} else {
		var old storedLetter
		if err := json.Unmarshal(letters.Get(number), &old); err != nil {
			return err
		}
		l.First, l.Times = old.First, old.Times+1
	}
	v, err := json.Marshal(l)
	if err != nil {
		return err
	}
	return letters.Put(bytes.Clone(number), v) // what Get returned is the file's
}

// makeRoom drops the oldest letters until one more, of about so many bytes, is within the bounds.
func makeRoom(letters, ids *bolt.Bucket, bytes, most int) error {
	n, c := 1, letters.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		n++
		bytes += len(v)
	}
	for ; n > MaxLetters || n > 1 && bytes > most; n-- {
		size, err := dropOldest(letters, ids)
		if err != nil {
			return err
		}
		bytes -= size
	}
	return nil
}

// dropOldest returns how many bytes it had.
func dropOldest(letters, ids *bolt.Bucket) (size int, err error) {
	number, v := letters.Cursor().First()
	var l storedLetter
	if err := json.Unmarshal(v, &l); err != nil {
		return 0, err
	}
	size = len(v)
	number = bytes.Clone(number)
	err = errors.Join(ids.Delete([]byte(l.ID)), letters.Delete(number), ids.SetSequence(ids.Sequence()+1))
	return size, err
}

// count walks the keys: bolt's own Stats knows nothing of the transaction under way.
func count(b *bolt.Bucket) (n int) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		n++
	}
	return n
}

// ForgetLetter drops a letter that was dealt with. An unknown id is NotFound.
func (q *Queue) ForgetLetter(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	found := false
	err := q.commit(func(b *batch) {
		b.also = append(b.also, func(tx *bolt.Tx) error {
			ids := tx.Bucket([]byte(letterIDsBucket))
			number := bytes.Clone(ids.Get([]byte(id)))
			if found = number != nil; !found {
				return nil
			}
			return errors.Join(ids.Delete([]byte(id)), tx.Bucket([]byte(lettersBucket)).Delete(number))
		})
	})
	if err == nil && !found {
		err = registry.Errorf(registry.NotFound, "letter %.64q: not found", id)
	}
	return err
}

// Letters yields the dead letters, the oldest first, those that come meanwhile included. A failing iteration yields its
// error last.
func (q *Queue) Letters(ctx context.Context) iter.Seq2[Letter, error] {
	return func(yield func(Letter, error) bool) {
		var after []byte
		for { // a few to a transaction: the caller may block, and they may be large
			var some []Letter
			err := ctx.Err()
			if err == nil {
				err = q.db.View(func(tx *bolt.Tx) error {
					c := tx.Bucket([]byte(lettersBucket)).Cursor()
					k, v := c.First()
					if after != nil {
						if k, v = c.Seek(after); bytes.Equal(k, after) {
							k, v = c.Next()
						}
					}
					for ; k != nil && len(some) < 16; k, v = c.Next() {
						var s storedLetter
						if err := json.Unmarshal(v, &s); err != nil {
							return fmt.Errorf("letter %x: %w", k, err)
						}
						some, after = append(some, Letter(s)), bytes.Clone(k)
					}
					return nil
				})
			}
			if err != nil {
				yield(Letter{}, internal(err))
				return
			}
			if len(some) == 0 {
				return
			}
			for _, l := range some {
				if !yield(l, nil) {
					return
				}
			}
		}
	}
}

// Letter returns the dead letter of that id; an unknown one is NotFound.
func (q *Queue) Letter(ctx context.Context, id string) (l Letter, err error) {
	if err := ctx.Err(); err != nil {
		return Letter{}, err
	}
	err = q.db.View(func(tx *bolt.Tx) error {
		number := tx.Bucket([]byte(letterIDsBucket)).Get([]byte(id))
		if number == nil {
			return registry.Errorf(registry.NotFound, "letter %.64q: not found", id)
		}
		var s storedLetter
		if err := json.Unmarshal(tx.Bucket([]byte(lettersBucket)).Get(number), &s); err != nil {
			return fmt.Errorf("letter %s: %w", id, err)
		}
		l = Letter(s)
		return nil
	})
	return l, internal(err)
}

// LetterCounts counts the dead letters.
func (q *Queue) LetterCounts() (c LetterCounts, err error) {
	err = q.db.View(func(tx *bolt.Tx) error {
		ids := tx.Bucket([]byte(letterIDsBucket))
		c = LetterCounts{Kept: count(ids), Dropped: ids.Sequence()}
		return nil
	})
	return c, internal(err)
}
