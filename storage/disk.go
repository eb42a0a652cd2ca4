package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// tmpPath is a name that nothing else uses before the next start, which removes what is left there.
func (s *Store) tmpPath() string {
	return filepath.Join(s.opts.Path, "tmp", fmt.Sprint(s.tmp.Add(1)))
}

// room is how many bytes the filesystem can take beyond what is booked. The caller holds mu.
func (s *Store) room() int64 {
	total, free := filesystem(s.opts.Path)
	room := free - total/100*int64(s.opts.FreePercent)
	for _, f := range s.fills {
		room -= f.outstanding()
	}
	return room
}

// makeRoom evicts down to 95 % of what may be used, so that a fill seldom waits for a removal.
func (s *Store) makeRoom() {
	s.mu.Lock()
	limit := min(s.space.limit, s.space.used+s.room())
	gone := s.forget(s.space.shrink(limit - limit/20))
	s.mu.Unlock()
	s.remove(gone)
}

// forget takes victims, which the space has dropped, out of the metadata and out of sight, and returns the files to remove
// once mu is free: an unlink of gigabytes takes a while. The caller holds mu, so no fill of the same digest runs yet.
func (s *Store) forget(victims []*item) (files []string) {
	for _, v := range victims {
		s.metrics.evictions.Inc()
		names := []string{s.blobPath(v.key.digest)}
		if v.key.partial {
			names = []string{s.fillName(v.key.digest) + ".map", s.fillName(v.key.digest) + ".data"}
		} else {
			s.meta.drop(v.key.digest)
			s.manifests.Remove(v.key.digest)
		}
		for _, name := range names {
			if tmp := s.tmpPath(); os.Rename(name, tmp) == nil {
				files = append(files, tmp)
			}
		}
	}
	return files
}

func (s *Store) remove(files []string) {
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			s.log.Error("remove evicted file", "error", err)
		}
	}
	if len(files) > 0 {
		s.flushSoon()
	}
}

// filesystem returns the size of the filesystem that holds path, and the bytes free for this process.
func filesystem(path string) (total, free int64) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 1 << 62 // nothing known: the limit alone counts
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize
}

var (
	errDisk     = errors.New("write to the store")
	errDiskFull = errors.New("the disk was full a moment ago")
)

// disk is what a failed write means: on a full disk, that there is no use in starting another fill soon.
func (f *fill) disk(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		f.s.mu.Lock()
		f.s.fullUntil = time.Now().Add(10 * time.Second)
		gone := f.s.forget(f.s.space.shrink(f.s.space.used - f.s.space.used/20))
		f.s.mu.Unlock()
		f.s.remove(gone)
		f.s.log.Error("disk is full: content is not cached", "digest", f.digest, "error", err)
		return fmt.Errorf("%w: %w", errUncached, registry.Errorf(registry.Unavailable, "%w", err))
	}
	return err
}
