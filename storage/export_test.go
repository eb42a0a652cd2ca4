package storage

import (
	"context"
	"io/fs"
	"os"
)

// SetWrite has fills write through f: to fill the disk up.
func (s *Store) SetWrite(f func(*os.File, []byte, int64) (int, error)) { s.write = f }

// SetPublish has fills give complete files their final name through f.
func (s *Store) SetPublish(f func(f *os.File, path string) error) { s.publish = f }

// CheckWith is Check with objects opened through open: for a disk that cannot be read.
func CheckWith(ctx context.Context, o CheckOptions, open func(string) (fs.File, error)) (CheckReport, error) {
	c := newChecker(o)
	c.open = open
	return c.check(ctx)
}
