package storage

import (
	"errors"
	"fmt"
	"time"
)

// setFile makes file, nil for none, the one that followers read.
func (f *fill) setFile(file *fillFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.close()
	}
	f.file = file
}

// allocate reserves space and makes an empty file.
func (f *fill) allocate(name string) error {
	s := f.s
	f.setFile(nil)
	err := f.reserve()
	for try := 0; try < 100 && errors.Is(err, errNoRoom) && s.committing(); try++ {
		time.Sleep(10 * time.Millisecond) // what is being committed can be evicted once that is done
		err = f.reserve()
	}
	if errors.Is(err, errTooLarge) {
		s.uncached.Add(f.digest, true)
	}
	if err == nil {
		var file *fillFile
		if file, err = createFillFile(name, f.digest, f.desc.Size); err == nil {
			f.setFile(file)
			return nil
		}
		s.troubled(err)
	}
	s.log.Warn("content is not cached", "digest", f.digest, "bytes", f.desc.Size, "error", err)
	return fmt.Errorf("%w: %w", errUncached, err)
}

// reserve books the space, in place of a partial object that is of no use.
func (f *fill) reserve() error {
	s := f.s
	s.mu.Lock()
	if f.item != nil {
		s.space.unpin(f.item)
		s.space.drop(f.item)
		f.item = nil
	}
	if time.Now().Before(s.troubleUntil) {
		s.mu.Unlock()
		return errTrouble
	}
	it, victims, err := s.space.reserve(key{f.digest, true}, f.desc.Size, s.room(), time.Now())
	f.item = it
	gone := s.forget(victims)
	s.mu.Unlock()
	s.remove(gone)
	return err
}
