package replicate

import (
	"errors"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// ErrLocked means that another process has the queue open.
var ErrLocked = errors.New("locked: another process uses it")

func notOpen(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		err = ErrLocked
	}
	return registry.Errorf(registry.Internal, "queue: open %s: %w", path, err)
}

// Snapshot copies the queue file at path to a new file, for who wants to look at it without keeping a mirror from starting. It
// fails with ErrLocked while another process has the queue open. The caller removes the copy.
func Snapshot(path, to string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return notOpen(path, err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error { return tx.CopyFile(to, 0o600) }); err != nil {
		return registry.Errorf(registry.Internal, "queue: copy %s: %w", path, err)
	}
	return nil
}
