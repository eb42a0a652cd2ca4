package storage

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// ErrLocked means that another process uses the directory.
var ErrLocked = errors.New("locked: another process uses this directory")

var (
	errFormat   = errors.New("format of another version")
	errBadIndex = errors.New("damaged: fsck --repair makes it anew")
)

// openDB opens the file, and makes it unless readOnly. Of a damaged one it notices what would end the process.
func openDB(path string, wait time.Duration, readOnly bool) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File // that has the lock
	defer func() {
		if r := recover(); r != nil {
			// Closing would not do: the file is mapped.
			err = errors.Join(fmt.Errorf("%s: %w: %v", path, errBadIndex, r), syscall.Flock(int(file.Fd()), syscall.LOCK_UN), file.Close())
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
	db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, ReadOnly: readOnly, FreelistType: bbolt.FreelistMapType,
		OpenFile: func(name string, flag int, perm os.FileMode) (_ *os.File, err error) {
			file, err = os.OpenFile(name, flag, perm)
			return file, err
		}})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		err = ErrLocked
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

// guarded runs a transaction. The library panics at some kinds of damage, and reads where nothing is mapped at others: here
// that is an error.
func guarded(transaction func(func(*bbolt.Tx) error) error, f func(*bbolt.Tx) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errBadIndex, r)
		}
	}()
	return transaction(f)
}

func buckets() []string { return []string{bucketObjects, bucketLinks, bucketTags, bucketFormat} }

// prepareDB makes a new file one of ours.
func prepareDB(db *bbolt.DB) error {
	return guarded(db.Update, func(tx *bbolt.Tx) error {
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
