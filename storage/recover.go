package storage

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// recover books what is on the disk, without reading it. The disk is the truth and the metadata follows: a complete object
// that no row knows lost its row in a crash, and a row without an object goes, with its links, which must not come back to
// life when somebody else brings the content.
func (s *Store) recover() error {
	if err := os.RemoveAll(filepath.Join(s.root, "tmp")); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(s.root, "tmp"), 0o700); err != nil {
		return err
	}
	total, _, err := s.statfs(s.root)
	if err != nil {
		return err
	}
	if s.opts.Size <= 0 {
		s.opts.Size = min(50<<30, total/5)
	}
	complete, err := s.recoverObjects()
	if err != nil {
		return err
	}
	partial, err := s.recoverFills()
	if err != nil {
		return err
	}
	s.space = newSpace(s.opts.Size, append(complete, partial...))
	return nil
}

// recoverObjects goes through blobs/, a directory and its stretch of rows at a time.
func (s *Store) recoverObjects() ([]*item, error) {
	var mu sync.Mutex
	var found []*item
	var work errgroup.Group
	work.SetLimit(runtime.GOMAXPROCS(0))
	for _, algorithm := range algorithms() {
		parts := shards()
		if _, err := os.Stat(s.blobsDir(algorithm, "")); errors.Is(err, os.ErrNotExist) {
			parts = []string{""} // rows alone, if any
		}
		for _, digits := range parts {
			work.Go(func() error {
				items, err := s.recoverShard(algorithm, digits)
				mu.Lock()
				defer mu.Unlock()
				found = append(found, items...)
				return err
			})
		}
	}
	return found, work.Wait()
}

// recoverShard returns the objects whose digests begin with algorithm and digits. It looks only at files whose size no row
// knows, so that a million objects take about as long as listing them.
func (s *Store) recoverShard(algorithm, digits string) (found []*item, err error) {
	dir := s.blobsDir(algorithm, digits)
	names, err := fileNames(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	rows, err := s.meta.objects(algorithm+":"+digits, len(names))
	if err != nil {
		return nil, err
	}
	found = make([]*item, 0, len(names))
	known := func() string { return string(rows[0].key.digest[len(algorithm)+1:]) }
	for _, name := range names {
		for ; len(rows) > 0 && known() < name; rows = rows[1:] {
			s.meta.drop(rows[0].key.digest)
		}
		if len(rows) > 0 && known() == name {
			it := &rows[0]
			if rows = rows[1:]; it.size >= 0 {
				found = append(found, it)
				continue
			}
		}
		d := digest.Digest(algorithm + ":" + name)
		if d.Validate() != nil || !strings.HasPrefix(name, digits) {
			s.log.Warn("not a file of the store", "path", filepath.Join(dir, name))
			continue
		}
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		found = append(found, &item{key: key{digest: d}, size: info.Size(), access: info.ModTime().UnixNano()})
	}
	for i := range rows {
		s.meta.drop(rows[i].key.digest)
	}
	return found, nil
}

// recoverFills returns the partial objects in fills/, and removes halves of them.
func (s *Store) recoverFills() (found []*item, err error) {
	dir := filepath.Join(s.root, "fills")
	names, err := fileNames(dir)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		base, isData := strings.CutSuffix(name, ".data")
		d, err := parseFillName(base)
		if isData && err == nil && contains(names, base+".map") {
			info, err := os.Lstat(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			found = append(found, &item{key: key{d, true}, size: info.Size(), access: info.ModTime().UnixNano()})
			continue
		}
		if base, isMap := strings.CutSuffix(name, ".map"); isMap && contains(names, base+".data") {
			continue // noted with its data
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func contains(sorted []string, name string) bool {
	_, ok := slices.BinarySearch(sorted, name)
	return ok
}
