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

// troubleFor is how long no fill starts after the disk did not take something.
const troubleFor = 10 * time.Second

// tmpPath is a name that nothing else uses before the next start, which removes what is left there.
func (s *Store) tmpPath() string {
	return filepath.Join(s.root, "tmp", fmt.Sprint(s.tmp.Add(1)))
}

// room is how many bytes the filesystem can take beyond what is booked. The caller holds mu.
func (s *Store) room() int64 {
	total, free, err := s.statfs(s.root)
	if err != nil {
		return 1 << 62 // nothing known: the limit alone counts
	}
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
	s.mu.Unlock()
	s.evict(limit - limit/20)
}

// evict removes what was used longest ago until at most target bytes are booked, or all that is left is in use. It lets go of
// mu now and then, for there may be a million to remove.
func (s *Store) evict(target int64) {
	const most = 100
	for n := most; n == most; {
		s.mu.Lock()
		victims := s.space.shrink(target, most)
		gone := s.forget(victims)
		s.mu.Unlock()
		s.remove(gone)
		n = len(victims)
	}
}

// forget takes victims, which the space has dropped, out of the metadata and out of sight, and returns the files to remove
// once mu is free: an unlink of gigabytes takes a while. The caller holds mu, so nothing of the same digest is written yet.
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
			tmp := s.tmpPath()
			if err := os.Rename(name, tmp); err == nil {
				files = append(files, tmp)
			} else if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) { // there is no tmp
				s.log.Error("an evicted file stays until the next start", "error", err)
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

// statfs returns the size of the filesystem that holds path, and the bytes free for this process.
func statfs(path string) (total, free int64, err error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(path, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	total, free = shareOf(st)
	return total, free, nil
}

// shareOf counts as df does: what is used and what is free for us. What is kept from us, for root or by a quota, is neither.
func shareOf(st syscall.Statfs_t) (total, free int64) {
	return int64(st.Blocks-st.Bfree+st.Bavail) * st.Bsize, int64(st.Bavail) * st.Bsize
}

var (
	errDisk    = errors.New("write to the store")
	errTrouble = errors.New("the disk took nothing a moment ago")
)

// troubled is told that the disk did not take something: content goes past the store for a while. If it is full in spite of
// all reservations, some of what was not used for long leaves, and troubled reports true.
func (s *Store) troubled(err error) (full bool) {
	full = errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
	s.mu.Lock()
	now, target := time.Now(), s.space.used
	if now.After(s.troubleUntil) { // once, not for every write that fails
		s.troubleUntil = now.Add(troubleFor)
		target -= target / 20
	}
	s.mu.Unlock()
	if full {
		s.evict(target)
	}
	return full
}

// disk is what a failed write of a fill means.
func (f *fill) disk(err error) error {
	if !f.s.troubled(err) {
		return err
	}
	f.s.log.Error("disk is full: content is not cached", "digest", f.digest, "error", err)
	return fmt.Errorf("%w: %w", errUncached, registry.Errorf(registry.Unavailable, "%w", err))
}
