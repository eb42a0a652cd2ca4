package storage

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

var (
	errLocked   = errors.New("locked: another process uses this directory")
	errFormat   = errors.New("format of another version")
	errBadIndex = errors.New("damaged: fsck --repair makes it anew")
)

// openDB opens the file, and makes it unless readOnly. Of a damaged one it notices what would end the process.
func openDB(path string, wait time.Duration, readOnly bool) (db *bbolt.DB, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %w: %v", path, errBadIndex, r)
		}
	}()
	info, err := os.Stat(path)
	if err == nil && info.Size() > 0 && !readOnly {
		if db, err = openDB(path, wait, true); err != nil { // which reads less
			return nil, err
		}
		if err := db.Close(); err != nil {
			return nil, err
		}
	}
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, ReadOnly: readOnly, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = errLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		err = fmt.Errorf("%w: %w", errBadIndex, err)
	case err == nil && readOnly:
		err = db.View(func(tx *bbolt.Tx) error {
			if info.Size() < tx.Size() {
				return fmt.Errorf("%w: %d bytes, want %d", errBadIndex, info.Size(), tx.Size())
			}
			return nil
		})
		if err != nil {
			db.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return db, nil
}

func buckets() []string { return []string{bucketObjects, bucketLinks, bucketTags, bucketFormat} }

// prepareDB makes a new file one of ours.
func prepareDB(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		for _, b := range buckets() {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		f := tx.Bucket([]byte(bucketFormat))
		if f.Get([]byte("version")) == nil {
			return f.Put([]byte("version"), []byte(formatVersion))
		}
		return checkFormat(tx)
	})
}

func checkFormat(tx *bbolt.Tx) error {
	if v := tx.Bucket([]byte(bucketFormat)).Get([]byte("version")); string(v) != formatVersion {
		return fmt.Errorf("%w: %s, this program knows %s", errFormat, v, formatVersion)
	}
	return nil
}
