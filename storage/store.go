package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

// Options configure a Store. Only Path is required.
type Options struct {
	Path          string        // directory of one store and one process; created when missing
	Size          int64         // bytes it may use; 0: the smaller of 50 GiB and a fifth of the filesystem
	FreePercent   int           // percent of the filesystem that stay free
	ManifestCache int           // manifests kept in memory; 0: 4096
	StallTimeout  time.Duration // an upstream stream without a byte for so long is asked again; 0: 20 s
	LockWait      time.Duration // how long Open waits for another process to let go of Path; 0: 1 s
	FillOnProbe   bool          // a read of at most 64 KiB brings the whole blob, not just what it needs
	Logger        *slog.Logger  // nil: silent
}

// Store is content on a local disk. Create it with Open; its methods are safe for concurrent use.
type Store struct {
	layout
	opts    Options
	log     *slog.Logger
	meta    *meta
	metrics *metrics

	manifests *lru.Cache[digest.Digest, []byte] // small ones, by digest: bytes only, the right to them is a link
	uncached  *lru.Cache[digest.Digest, bool]   // larger than the cache: not worth another try
	doubts    *lru.Cache[digest.Digest, doubt]
	flights   singleflight.Group // manifests being fetched

	ctx      context.Context // of fills; done when the store closes
	stop     context.CancelFunc
	work     sync.WaitGroup // fills, flushes, removals
	flushing atomic.Bool    // a flush is about to start
	tmp      atomic.Uint64  // makes temporary names unique
	slots    slots
	buffers  sync.Pool // of *[]byte, chunk long

	// What is asked of the disk; tests make it fail.
	write     func(f *os.File, p []byte, at int64) (int, error)
	publish   func(f *os.File, path string) error
	writeFile func(tmp, path string, data []byte, perm os.FileMode) error
	statfs    func(path string) (total, free int64, err error)

	mu           sync.Mutex // guards what follows
	closed       bool
	space        *space
	fills        map[digest.Digest]*fill
	troubleUntil time.Time // the disk took nothing: no fills before
}

// Open opens the store in o.Path, or creates it. It fails when the directory is not writable or another process has it.
func Open(o Options) (*Store, error) {
	s, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Path, err)
	}
	return s, nil
}

func open(o Options) (*Store, error) {
	if o.Path == "" {
		return nil, errors.New("no path")
	}
	if o.ManifestCache <= 0 {
		o.ManifestCache = 4096
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 20 * time.Second
	}
	if o.LockWait <= 0 {
		o.LockWait = time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{layout: layout{o.Path}, opts: o, log: o.Logger, fills: make(map[digest.Digest]*fill),
		write: (*os.File).WriteAt, publish: durable.Publish, writeFile: durable.WriteFile, statfs: statfs}
	s.buffers.New = func() any { b := make([]byte, chunk); return &b }
	for _, dir := range []string{"blobs", "fills", "tmp"} {
		if err := durable.MkdirAll(filepath.Join(o.Path, dir), 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	if s.meta, err = openMeta(filepath.Join(o.Path, "meta.db"), o.LockWait); err != nil {
		return nil, err
	}
	// The lock is held from here on: what is temporary is nobody's.
	if err := s.recover(); err != nil {
		s.meta.db.Close()
		return nil, err
	}
	s.manifests, _ = lru.New[digest.Digest, []byte](o.ManifestCache) // fails only for a size below 1
	s.uncached, _ = lru.New[digest.Digest, bool](1024)
	s.doubts, _ = lru.New[digest.Digest, doubt](1024)
	s.metrics = newMetrics(s)
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s, nil
}

// Run saves access times and keeps some space free ahead of need, until ctx ends. Fills and commits do not depend on it.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.makeRoom()
		if n%60 == 0 {
			s.saveAccess()
			s.flush()
		}
	}
}

// Close ends fills, which resume when the store is opened again and they are asked for, and makes everything durable.
// Open Contents of complete objects stay readable; those of fills end with an error of class Unavailable.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
	s.saveAccess()
	if err := s.meta.close(); err != nil {
		return fmt.Errorf("close store %s: %w", s.opts.Path, err)
	}
	return nil
}

// spawn runs f in the background until the store closes; false when it is closed.
func (s *Store) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spawnLocked(f)
}

func (s *Store) spawnLocked(f func()) bool {
	if !s.closed {
		s.work.Go(f)
	}
	return !s.closed
}

// begin counts work of another goroutine among what Close waits for, until work.Done; false when the store is closed.
func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Add(1)
	}
	return !s.closed
}

// flushSoon makes what was put durable in the background; many calls become one transaction.
func (s *Store) flushSoon() {
	if s.flushing.CompareAndSwap(false, true) {
		s.spawn(func() {
			s.flushing.Store(false)
			s.flush()
		})
	}
}

// flush makes what was put durable. What cannot be written is kept for the next time.
func (s *Store) flush() {
	if err := s.meta.flush(); err != nil {
		s.troubled(err)
		s.log.Error("write metadata", "error", err)
	}
}

func (s *Store) saveAccess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range s.space.unsaved() {
		if !it.key.partial { // those are not resumed for their age
			s.meta.putAccess(it.key.digest, objectRow{it.access, it.size})
		}
	}
}

var errClosed = registry.Errorf(registry.Unavailable, "store is closed")
