package storage

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"sync"
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
)

// errUncached ends a fill that has no place on the disk; its readers read from upstream.
var errUncached = errors.New("no room in the store")

// errDamaged ends an interrupted fill whose bytes on the disk turned out wrong: the upstream is not to blame.
var errDamaged = registry.Errorf(registry.Unavailable, "bytes left by an interrupted fill were damaged")

// fill is the one download of one blob. The store owns it: readers come and go. It opens upstream once, and only then knows
// the size, reserves space and becomes ready; it ends verified and committed, or failed.
type fill struct {
	s       *Store
	digest  digest.Digest
	starter *view         // whose error an upstream's refusal is
	origin  place         // the starter's
	ready   chan struct{} // closed when desc is known and data may be followed, or err is set

	// Written before ready is closed.
	desc registry.Descriptor
	from registry.Reader // the Reader that answered the starter
	file *fillFile       // under mu as well, for outstanding
	item *item           // pinned until the fill ends; guarded by Store.mu

	// Of the goroutine that runs the fill.
	hash    hash.Hash
	resumed bool
	content *registry.Content
	cancel  context.CancelCauseFunc // of content
	syncing chan struct{}           // holds a token while an fsync runs in the background

	mu       sync.Mutex
	members  map[place]*view // who may follow: each has been answered by its own upstream
	order    []place         // of members: whom to ask when a stream breaks
	have     int64           // bytes from the start that are in the file
	told     int64           // of those, what followers know of
	verified bool
	ended    bool // committed or failed: nobody joins any more
	err      error
	wake     chan struct{} // closed and replaced to wake followers
	timer    *time.Timer   // tells what is left after wakeAfter; nil when none runs
}

// startFill starts the download of o for v. The caller holds s.mu and has seen that neither a fill nor the object exists.
func (s *Store) startFill(ctx context.Context, v *view, o registry.Object) (*fill, error) {
	p := v.place(o)
	f := &fill{s: s, digest: o.Digest, starter: v, origin: p, ready: make(chan struct{}), wake: make(chan struct{}),
		members: map[place]*view{p: v}, order: []place{p}, syncing: make(chan struct{}, 1)}
	ctx = registry.WithLane(s.ctx, registry.LaneOf(ctx))
	if !s.spawnLocked(func() { f.run(ctx) }) {
		return nil, errClosed
	}
	s.fills[o.Digest] = f
	return f, nil
}

// join lets the readers of p follow; false when the fill has ended.
func (f *fill) join(p place, v *view) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	if _, ok := f.members[p]; !ok {
		f.order = append(f.order, p)
		f.members[p] = v
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
	if f.file == nil {
		return 0
	}
	return f.file.size - f.have
}

func (f *fill) run(ctx context.Context) {
	err := f.start(ctx)
	if err == nil {
		close(f.ready)
		if err = f.transfer(ctx); err == nil {
			err = f.verify()
		}
		f.syncing <- struct{}{} // no fsync runs from here on
	}
	f.end(ctx, err)
}

// start asks upstream, which is also what gives the starter the right to read, and prepares the file.
func (f *fill) start(ctx context.Context) error {
	name, p := f.s.fillName(f.digest), f.origin
	o := registry.Object{Repo: p.repo, Kind: p.kind, Digest: f.digest}
	f.s.mu.Lock()
	old := f.s.space.pin(key{f.digest, true}, time.Now())
	f.s.mu.Unlock()
	f.item = old
	rest := registry.Whole
	if old != nil {
		if file, err := openFillFile(name, f.digest); err == nil {
			// The last segment is asked for in any case: no bytes without an answer from this upstream.
			rest.Offset = min(file.prefix(), max(0, file.size-1)/file.segment*file.segment)
			f.setFile(file, rest.Offset)
		}
	}
	err := f.open(ctx, f.starter.up, o, rest)
	if err == nil && rest.Offset > 0 && f.content.Descriptor.Size != f.file.size {
		f.shut()
		err = registry.Errorf(registry.Invalid, "open %v: size changed", o)
	}
	if err != nil && rest.Offset > 0 && registry.ClassOf(err) == registry.Invalid {
		rest = registry.Whole // what is on the disk belongs to something else
		err = f.open(ctx, f.starter.up, o, rest)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errClosed
		}
		return err
	}
	f.from, f.desc = f.content.From, f.content.Descriptor
	f.desc.Digest = f.digest
	if f.from == nil {
		f.from = f.starter.up
	}
	f.hash = f.digest.Algorithm().Hash()
	if f.desc.Size == 0 { // no byte of it can be withheld: its readers end as soon as it is ready
		if err := f.verify(); err != nil {
			return err
		}
	}
	if f.resumed = rest.Offset > 0; f.resumed {
		return nil
	}
	return f.allocate(name)
}

// setFile makes file, of which have bytes are good, the one that followers read.
func (f *fill) setFile(file *fillFile, have int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.file != nil {
		f.file.close()
	}
	f.file, f.have, f.told = file, have, have
}

// allocate reserves space and makes an empty file.
func (f *fill) allocate(name string) error {
	s := f.s
	f.setFile(nil, 0)
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
			f.setFile(file, 0)
			return nil
		}
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
	if time.Now().Before(s.fullUntil) {
		s.mu.Unlock()
		return errDiskFull
	}
	it, victims, err := s.space.reserve(key{f.digest, true}, f.desc.Size, s.room(), time.Now())
	f.item = it
	gone := s.forget(victims)
	s.mu.Unlock()
	s.remove(gone)
	return err
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

// end commits the fill or says why it failed, and takes it out of the store's map.
func (f *fill) end(ctx context.Context, err error) {
	s, result := f.s, "complete"
	f.shut()
	wasReady := err == nil
	select {
	case <-f.ready:
		wasReady = true
	default:
	}
	keep := false // the partial object, for the next fill
	switch {
	case err == nil:
		if err = f.publish(); err != nil {
			result = "failed"
			s.log.Error("commit", "digest", f.digest, "error", err)
		}
	case errors.Is(err, errUncached):
		result = "uncached"
	case registry.ClassOf(err) == registry.Corrupt:
		result = "corrupt"
		s.doubt(f.digest, f.from)
		s.metrics.mismatches.Inc()
		s.log.Error("upstream sent wrong bytes", "digest", f.digest, "error", err)
	case !wasReady:
		result, keep = "refused", true
	case errors.Is(err, errDamaged):
		result = "damaged"
		s.log.Warn("bytes of an interrupted fill were damaged: fetching again", "digest", f.digest)
	default:
		result = "failed"
		if ctx.Err() != nil {
			result, err = "interrupted", errClosed
		} else if !errors.Is(err, errDisk) {
			s.doubt(f.digest, f.from)
		}
		keep = f.file.sync(f.have) == nil
	}
	s.metrics.fills.WithLabelValues(result).Inc()

	s.mu.Lock()
	f.mu.Lock()
	f.ended = true
	if result != "complete" && !f.verified {
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
	}
	delete(s.fills, f.digest)
	if result == "damaged" { // once: the new fill resumes nothing
		p := f.origin
		_, _ = s.startFill(ctx, f.starter, registry.Object{Repo: p.repo, Kind: p.kind, Digest: f.digest})
	}
	s.mu.Unlock()
	if f.file != nil {
		f.file.close()
	}
	if !wasReady {
		close(f.ready)
	}
	if result == "complete" {
		if err := s.meta.flush(); err != nil {
			s.log.Error("commit links", "digest", f.digest, "error", err)
		}
	}
}

// publish makes the verified file durable under its final name. The rows follow: a crash in between leaves an object that
// nobody is linked to, which the next upstream Stat links.
func (f *fill) publish() error {
	path := f.s.blobPath(f.digest)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := durable.Publish(f.file.data, path); err != nil {
		return err
	}
	return os.Remove(f.s.fillName(f.digest) + ".map")
}

// transfer brings what is missing into the file, asking again where a stream breaks.
func (f *fill) transfer(ctx context.Context) error {
	if f.resumed {
		n, err := io.Copy(f.hash, io.NewSectionReader(f.file.data, 0, f.have))
		if err == nil && n < f.have {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return errDamaged
		}
	}
	var r retry
	for f.have < f.desc.Size {
		before := f.have
		err := f.pump(ctx)
		f.shut()
		switch {
		case f.have == f.desc.Size:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errDisk):
			return f.disk(err)
		}
		f.s.log.Warn("upstream broke, continuing", "digest", f.digest, "at", f.have, "of", f.desc.Size, "error", err)
		if err := f.reopen(ctx, &r, f.have-before, err); err != nil {
			return err
		}
	}
	return nil
}
