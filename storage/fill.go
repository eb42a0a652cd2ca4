package storage

import (
	"context"
	"errors"
	"hash"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

const (
	withheld  = 64 << 10              // the tail that waits for the digest
	wakeBytes = 1 << 20               // followers wake per so many bytes,
	wakeAfter = 10 * time.Millisecond // or after so long
	syncEvery = 8 << 20               // bytes between fsyncs: what a power cut costs
	chunk     = 256 << 10             // read from upstream at once, at most
	linger    = time.Minute           // how long a fill of which nobody wants more waits for the next reader
)

// errUncached ends a fill that has no place on the disk; its readers read from upstream.
var errUncached = errors.New("no room in the store")

// errDamaged ends an interrupted fill whose bytes on the disk turned out wrong: the upstream is not to blame.
var errDamaged = registry.Errorf(registry.Unavailable, "bytes left by an interrupted fill were damaged")

// errParked ends a fill that brought what its readers wanted, less than the whole.
var errParked = errors.New("nobody wants more")

// fill is the one download of one blob. The store owns it: readers come and go. Its first answer from upstream makes it
// ready: only then are the size and the right to read known, and space reserved. Streams then bring the bytes; it ends
// verified and committed, or failed.
type fill struct {
	s       *Store
	digest  digest.Digest
	starter *view         // whose error an upstream's refusal is
	origin  place         // the starter's
	first   int64         // where the starter's range begins
	ready   chan struct{} // closed when desc is known and data may be followed, or err is set
	waiting atomic.Int32  // readers that wait for ready

	// Written before ready is closed.
	desc    registry.Descriptor
	from    registry.Reader // the Reader that answered the starter
	host    string          // that sent the first bytes
	opening *stream         // the first answer
	file    *fillFile       // under mu as well, for outstanding
	item    *item           // pinned until the fill ends; guarded by Store.mu
	resumed bool            // the file has bytes of an interrupted fill

	kick    chan struct{} // holds a token when run has something to look at
	streams sync.WaitGroup
	syncing chan struct{} // holds a token while an fsync runs in the background

	hashing sync.Mutex // guards hash and moves of hashed
	hash    hash.Hash
	hashed  atomic.Int64 // bytes from the start that are in hash

	mu       sync.Mutex
	lane     registry.Lane   // of the most urgent reader
	whole    bool            // all of it is wanted, not just what readers wait for
	single   bool            // upstream ignores ranges
	members  map[place]*view // who may follow: each has been answered by its own upstream
	order    []place         // of members: whom to ask when a stream breaks
	readers  int             // bodies that are open
	plan     *schedule       // nil until ready
	pace     *pace
	retry    retry
	spawn    func(*run) // starts a stream; nil before there may be any
	active   int        // streams without a successor
	epoch    int        // counts troubles: streams from before one do not make another
	paused   bool       // after trouble
	over     bool       // no more streams
	failure  error      // ends the fill
	unsynced int64
	untold   int64 // bytes that followers have not been woken for
	verified bool
	ended    bool // committed or failed: nobody joins any more
	err      error
	wake     chan struct{} // closed and replaced to wake followers
	timer    *time.Timer   // tells what is left after wakeAfter; nil when none runs
}

// startFill starts the download of o for v, who wants r. The caller holds s.mu and has seen that neither a fill nor the
// object exists.
func (s *Store) startFill(ctx context.Context, v *view, o registry.Object, r registry.Range) (*fill, error) {
	p := v.place(o)
	f := &fill{s: s, digest: o.Digest, starter: v, origin: p, first: r.Offset, ready: make(chan struct{}), wake: make(chan struct{}),
		members: map[place]*view{p: v}, order: []place{p}, syncing: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		lane: registry.LaneOf(ctx), whole: s.opts.FillOnProbe || !probes(r)}
	work := registry.Apart(s.ctx, ctx)
	if !s.spawnLocked(func() { f.run(work) }) {
		return nil, errClosed
	}
	s.fills[o.Digest] = f
	return f, nil
}

// probes reports whether r is a look at a few bytes, which is not worth a blob.
func probes(r registry.Range) bool { return r.Length >= 0 && r.Length <= withheld }

// join lets the readers of p follow, one of whom wants r now; false when the fill has ended.
func (f *fill) join(ctx context.Context, p place, v *view, r registry.Range) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	if _, ok := f.members[p]; !ok {
		f.order = append(f.order, p)
		f.members[p] = v
	}
	f.lane = min(f.lane, registry.LaneOf(ctx))
	f.whole = f.whole || !probes(r)
	if f.plan != nil {
		f.pace.most = streamsOf(f.lane)
		f.grow()
	}
	return true
}

func (f *fill) member(p place) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.members[p]
	return ok
}

func (f *fill) outstanding() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.plan != nil:
		return f.plan.left
	case f.file != nil:
		return f.file.size
	}
	return 0
}

func (f *fill) run(ctx context.Context) {
	work, stop := context.WithCancel(ctx)
	err := f.start(work)
	if err == nil {
		close(f.ready)
		if err = f.transfer(work, stop); err == nil {
			err = f.verify()
		}
		f.syncing <- struct{}{} // no fsync runs from here on
	}
	stop()
	f.streams.Wait()
	if f.opening != nil {
		f.opening.shut()
	}
	f.end(ctx, err)
}

// committing reports whether a fill has all its bytes and only needs to be made durable.
func (s *Store) committing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.fills {
		f.mu.Lock()
		verified := f.verified
		f.mu.Unlock()
		if verified {
			return true
		}
	}
	return false
}

// verify compares the digest. On the match the withheld tail is released, before anything is durable.
func (f *fill) verify() error {
	if got := digest.NewDigest(f.digest.Algorithm(), f.hash); got != f.digest {
		if f.resumed {
			return errDamaged
		}
		return registry.Errorf(registry.Corrupt, "verify %s: upstream sent %s", f.digest, got)
	}
	f.mu.Lock()
	f.verified = true
	f.tell()
	f.mu.Unlock()
	return nil
}

// bits is which segments are there.
func (f *fill) bits() []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.plan.bits()
}

// outcome publishes a fill that has all its bytes (err is nil), and says in a word what became of it. keep is whether its
// partial object stays for the next fill, why what its readers are told.
func (f *fill) outcome(ctx context.Context, err error, wasReady bool) (result string, keep bool, why error) {
	s := f.s
	switch {
	case err == nil:
		if err := f.publish(); err != nil {
			s.troubled(err)
			s.log.Error("commit", "digest", f.digest, "error", err)
			return "failed", false, err
		}
		return "complete", false, nil
	case errors.Is(err, errUncached):
		return "uncached", false, err
	case errors.Is(err, errParked):
		return "interrupted", true, err
	case registry.ClassOf(err) == registry.Corrupt:
		s.doubt(f.digest, f.from)
		s.metrics.mismatches.Inc()
		s.log.Error("upstream sent wrong bytes", "digest", f.digest, "error", err)
		return "corrupt", false, err
	case !wasReady:
		return "refused", true, err
	case errors.Is(err, errDamaged):
		s.log.Warn("bytes of an interrupted fill were damaged: fetching again", "digest", f.digest)
		return "damaged", false, err
	}
	result = "failed"
	if ctx.Err() != nil {
		result, err = "interrupted", errClosed
	} else if !errors.Is(err, errDisk) {
		s.doubt(f.digest, f.from)
	}
	return result, f.file.sync(f.bits()) == nil, err
}

// end commits the fill or says why it failed, and takes it out of the store's map.
func (f *fill) end(ctx context.Context, err error) {
	s, wasReady := f.s, false
	select {
	case <-f.ready:
		wasReady = true
	default:
	}
	result, keep, err := f.outcome(ctx, err, wasReady)
	s.metrics.fills.WithLabelValues(result).Inc()

	s.mu.Lock()
	f.mu.Lock()
	f.ended = true
	if result != "complete" && !f.verified && f.err == nil { // see park
		f.err = err
	}
	f.tell()
	if result == "complete" {
		s.space.rekey(f.item, key{f.digest, false})
		for _, p := range f.order {
			s.meta.putLink(p, f.desc)
		}
	}
	f.mu.Unlock()
	if f.item != nil {
		s.space.unpin(f.item)
		if result != "complete" && !keep {
			s.space.drop(f.item)
		}
	}
	if result != "complete" && !keep {
		removeFillFile(s.fillName(f.digest))
		if f.verified { // publishing failed, perhaps after the rename; while mu is held nobody looks for it
			os.Remove(s.blobPath(f.digest))
		}
	}
	if s.fills[f.digest] == f {
		delete(s.fills, f.digest)
	}
	if result == "damaged" { // once: the new fill resumes nothing
		p := f.origin
		_, _ = s.startFill(ctx, f.starter, registry.Object{Repo: p.repo, Kind: p.kind, Digest: f.digest}, registry.Whole)
	}
	s.mu.Unlock()
	if f.file != nil {
		f.file.close()
	}
	if !wasReady {
		close(f.ready)
	}
	if result == "complete" {
		s.flush()
	}
}

// publish makes the verified file durable under its final name. The rows follow: a crash in between leaves an object that
// nobody is linked to, which the next upstream Stat links.
func (f *fill) publish() error {
	path := f.s.blobPath(f.digest)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := f.file.publish(path, f.s.publish); err != nil {
		return err
	}
	os.Remove(f.s.fillName(f.digest) + ".map") // one that stays goes at the next start
	return nil
}
