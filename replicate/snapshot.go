package replicate

import (
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Snapshot copies the queue file at path to a new file, for who wants to look at it without keeping a mirror from starting. It
// fails while another process has the queue open. The caller removes the copy.
func Snapshot(path, to string) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, ReadOnly: true})
	if err != nil {
		return registry.Errorf(registry.Internal, "queue: open %s: %w", path, err)
	}
	defer db.Close()
	if err := db.View(func(tx *bolt.Tx) error { return tx.CopyFile(to, 0o600) }); err != nil {
		return registry.Errorf(registry.Internal, "queue: copy %s: %w", path, err)
	}
	return nil
}
