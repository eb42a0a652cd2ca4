package storage

import "os"

// SetWrite has fills write through f: to fill the disk up.
func (s *Store) SetWrite(f func(*os.File, []byte, int64) (int, error)) { s.write = f }
