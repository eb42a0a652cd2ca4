package ecrtest

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
)

// content holds bytes by digest, for all registries together: who may see them is the repositories' business.
type content interface {
	stage() (stage, error)
	open(d digest.Digest) (io.ReadSeekCloser, error) // fs.ErrNotExist when absent
}

// stage is content on its way in. Either commit or abort ends it.
type stage interface {
	io.Writer
	commit(d digest.Digest) error
	abort()
}

// put stores b under d.
func put(c content, d digest.Digest, b []byte) error {
	s, err := c.stage()
	if err != nil {
		return err
	}
	if _, err := s.Write(b); err != nil {
		s.abort()
		return err
	}
	return s.commit(d)
}

// get returns all bytes of d.
func get(c content, d digest.Digest) ([]byte, error) {
	f, err := c.open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

type memory struct {
	mu sync.RWMutex
	m  map[digest.Digest][]byte
}

func newMemory() *memory { return &memory{m: map[digest.Digest][]byte{}} }

func (m *memory) stage() (stage, error) { return &memoryStage{m: m}, nil }

func (m *memory) open(d digest.Digest) (io.ReadSeekCloser, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	b, ok := m.m[d]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(b), io.NopCloser(nil)}, nil
}

type memoryStage struct {
	bytes.Buffer
	m *memory
}

func (s *memoryStage) commit(d digest.Digest) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.m[d] = s.Bytes()
	return nil
}

func (s *memoryStage) abort() {}

// directory keeps content in dir/<algorithm>/<hex>, staged beside it and renamed into place.
type directory struct{ dir string }

func (c directory) path(d digest.Digest) string {
	return filepath.Join(c.dir, d.Algorithm().String(), d.Encoded()) // d was validated: hex only
}

func (c directory) stage() (stage, error) {
	f, err := os.CreateTemp(c.dir, "stage-*")
	if err != nil {
		return nil, err
	}
	return &fileStage{f, c}, nil
}

func (c directory) open(d digest.Digest) (io.ReadSeekCloser, error) { return os.Open(c.path(d)) }

type fileStage struct {
	*os.File
	c directory
}

func (s *fileStage) commit(d digest.Digest) error {
	err := errors.Join(s.Close(), os.MkdirAll(filepath.Dir(s.c.path(d)), 0o755))
	if err == nil {
		err = os.Rename(s.Name(), s.c.path(d))
	}
	if err != nil {
		os.Remove(s.Name())
	}
	return err
}

func (s *fileStage) abort() {
	s.Close()
	os.Remove(s.Name())
}
