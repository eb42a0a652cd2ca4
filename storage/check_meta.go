package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
)

// openIndex takes the store's lock, which is that of meta.db, and looks whether that file holds together.
func (c *checker) openIndex() error {
	path := filepath.Join(c.root, "meta.db")
	err := c.tryIndex(path)
	if errors.Is(err, errBadIndex) {
		c.found(Problem{Kind: BadIndex, Path: path, Detail: err.Error()}, func() error { return os.Remove(path) })
		if err = nil; c.Repair {
			err = c.tryIndex(path)
		}
	} else if errors.Is(err, fs.ErrNotExist) { // nobody uses the store; the next start makes the file
		err = nil
	}
	return err
}

// tryIndex sets db if the file is sound. With Repair it makes one that is not there.
func (c *checker) tryIndex(path string) error {
	db, err := openDB(path, time.Second, !c.Repair)
	if err != nil {
		return err
	}
	err = guarded(db.View, func(tx *bbolt.Tx) (err error) {
		for e := range tx.Check() { // to its end, as it wants to be
			err = fmt.Errorf("%s: %w: %w", path, errBadIndex, e)
		}
		return err
	})
	if err == nil && c.Repair {
		err = prepareDB(db)
	}
	if err == nil {
		err = guarded(db.View, c.readIndex)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	c.db = db
	return nil
}

func (c *checker) readIndex(tx *bbolt.Tx) error {
	for _, name := range buckets() {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: there is no bucket %s", errBadIndex, name)
		}
	}
	if err := checkFormat(tx); err != nil {
		return err
	}
	return tx.Bucket([]byte(bucketObjects)).ForEach(func(_, v []byte) error {
		if r, ok := decodeObject(v); ok {
			c.total += r.size
		}
		return nil
	})
}

// dropRows forgets an object that is no more.
func (c *checker) dropRows(d digest.Digest) error {
	if c.db == nil {
		return nil
	}
	b := newBatch()
	b.change(d, func(c *change) { c.dropped = true })
	return c.db.Update(b.apply)
}

// checkRows goes through meta.db. What it mends is one transaction, as is what it sees.
func (c *checker) checkRows(ctx context.Context) error {
	if c.db == nil {
		return nil
	}
	transaction := c.db.View
	if c.Repair {
		transaction = c.db.Update
	}
	return transaction(func(tx *bbolt.Tx) error {
		r := rowChecker{checker: c, mend: newBatch(), objects: tx.Bucket([]byte(bucketObjects))}
		for _, b := range []struct {
			name  string
			check func(key string, v []byte) error
		}{{bucketObjects, r.checkObject}, {bucketLinks, r.checkLink}, {bucketTags, r.checkTag}} {
			err := tx.Bucket([]byte(b.name)).ForEach(func(k, v []byte) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return b.check(string(k), v)
			})
			if err != nil {
				return err
			}
		}
		if c.Repair {
			return r.mend.apply(tx)
		}
		return nil
	})
}

// rowChecker looks at rows and notes how to mend them.
type rowChecker struct {
	*checker
	objects *bbolt.Bucket
	mend    batch
	last    digest.Digest // that size was asked for; rows of one object stand together
	lastLen int64
}

// size is the size of an object on the disk; -1 for none.
func (r *rowChecker) size(d digest.Digest) (int64, error) {
	if d == r.last {
		return r.lastLen, nil
	}
	info, err := os.Lstat(r.blobPath(d))
	r.last, r.lastLen = d, -1
	if err == nil && info.Mode().IsRegular() {
		r.lastLen = info.Size()
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return r.lastLen, err
}

func (r *rowChecker) row(kind ProblemKind, bucket string, d digest.Digest, detail string, mend func()) {
	r.found(Problem{Kind: kind, Path: filepath.Join(r.root, "meta.db", bucket), Digest: d, Detail: detail}, func() error { mend(); return nil })
}

func (r *rowChecker) checkObject(key string, v []byte) error {
	d := digest.Digest(key)
	drop := func() { r.mend.change(d, func(c *change) { *c = change{dropped: true} }) }
	if d.Validate() != nil {
		r.row(BadRow, bucketObjects, "", fmt.Sprintf("key %q", key), drop)
		return nil
	}
	size, err := r.size(d)
	row, ok := decodeObject(v)
	switch {
	case err != nil || r.bad[d]:
	case size < 0:
		r.row(Missing, bucketObjects, d, "there is no file", drop)
	case !ok || row.size != size:
		r.row(BadRow, bucketObjects, d, fmt.Sprintf("%x; the file has %d bytes", v, size), func() {
			r.mend.change(d, func(c *change) { c.row = objectRow{row.access, size}.encode() })
		})
	}
	return err
}

func (r *rowChecker) checkLink(key string, v []byte) error {
	r.report.Links++
	d, ok := parseLink(key)
	drop := func() { r.mend.change(d, func(c *change) { c.link(key, nil) }) }
	var row linkRow
	if !ok || json.Unmarshal(v, &row) != nil {
		r.row(BadRow, bucketLinks, d, fmt.Sprintf("%q: %q", key, v), drop)
		return nil
	}
	size, err := r.size(d)
	known := r.objects.Get([]byte(d)) != nil
	switch {
	case err != nil || r.bad[d] || size < 0 && known: // reported
	case size < 0:
		r.row(Dangling, bucketLinks, d, fmt.Sprintf("%q: there is no such object", key), drop)
	case row.Size != size:
		r.row(BadRow, bucketLinks, d, fmt.Sprintf("%q: %d bytes; the file has %d", key, row.Size, size), drop)
	case !known:
		r.row(BadRow, bucketLinks, d, fmt.Sprintf("%q: the object has no row", key), func() {
			r.mend.change(d, func(c *change) { c.row = objectRow{0, size}.encode() })
		})
	}
	return err
}

func (r *rowChecker) checkTag(key string, v []byte) error {
	r.report.Tags++
	var row tagRow
	if bytes.Count([]byte(key), []byte{0}) != 2 || json.Unmarshal(v, &row) != nil || row.Digest.Validate() != nil {
		r.row(BadRow, bucketTags, "", fmt.Sprintf("%q: %q", key, v), func() { r.mend.tags[key] = nil })
	}
	return nil
}
