package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// stream is one ranged read: it brings the bytes of a run into the file. Shortly before its end a successor is started in
// its place, so that the wait for the next answer costs nothing.
type stream struct {
	f       *fill
	run     *run
	epoch   int
	retired bool // a successor may run

	ctx    context.Context // until it is shut
	cancel context.CancelCauseFunc

	err     error // of opening, if it is the fill's first
	desc    registry.Descriptor
	content *registry.Content
	began   time.Time // of the first byte
	gained  int64
}

func newStream(ctx context.Context, f *fill, r *run) *stream {
	st := &stream{f: f, run: r}
	st.ctx, st.cancel = context.WithCancelCause(ctx)
	return st
}

// open asks up for r. The upstream bounds the wait for its answer.
func (st *stream) open(up registry.Reader, o registry.Object, r registry.Range) error {
	c, err := up.Open(st.f.s.wary(st.ctx, o.Digest), o, r)
	if err != nil {
		return err
	}
	st.content, st.desc = c, c.Descriptor
	return nil
}

// shut closes what is open, if anything is.
func (st *stream) shut() {
	if st.content != nil {
		st.content.Close()
		st.content = nil
	}
	st.cancel(nil)
}

// launch runs st, which has a slot. The caller holds mu.
func (f *fill) launch(st *stream) {
	f.active++
	st.epoch = f.epoch
	up, p := f.from, f.origin
	if n := f.retry.fruitless; n > 1 { // others may be able to
		p = f.order[(n-2)%len(f.order)]
		up = f.members[p].up
	}
	o := registry.Object{Repo: p.repo, Kind: p.kind, Digest: f.digest}
	f.streams.Go(func() {
		err := st.fetch(up, o)
		st.shut()
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.plan.release(st.run)
			f.broke(st, err)
		}
		f.retire(st)
		f.grow()
		f.prod()
	})
}

// retire frees the place of st for another. The caller holds mu.
func (f *fill) retire(st *stream) {
	if !st.retired {
		st.retired = true
		f.active--
		f.s.slots.give(f.host)
	}
}

// fetch brings the run. A stream without a byte for StallTimeout is broken.
func (st *stream) fetch(up registry.Reader, o registry.Object) error {
	f, asked := st.f, time.Now()
	if st.content == nil {
		if err := st.open(up, o, registry.Range{Offset: st.run.at, Length: st.run.end - st.run.at}); err != nil {
			return err
		}
		if st.desc.Size != f.desc.Size {
			return registry.Errorf(registry.Corrupt, "fill %s: size changed from %d to %d bytes", f.digest, f.desc.Size, st.desc.Size)
		}
		if st.content.Sequential {
			f.mu.Lock()
			f.single = true
			f.mu.Unlock()
		}
	}
	timeout := f.s.opts.StallTimeout
	stall := time.AfterFunc(timeout, func() {
		st.cancel(registry.Errorf(registry.Unavailable, "no byte for %v", timeout))
	})
	defer stall.Stop()
	buf := f.s.buffers.Get().(*[]byte)
	defer f.s.buffers.Put(buf)
	for st.run.at < st.run.end {
		stall.Reset(timeout)
		n, err := st.content.Read((*buf)[:min(int64(len(*buf)), st.run.end-st.run.at)])
		stall.Stop()
		if n > 0 {
			if _, werr := f.s.write(f.file.data, (*buf)[:n], st.run.at); werr != nil {
				return fmt.Errorf("%w: %w", errDisk, werr)
			}
			st.wrote((*buf)[:n], asked)
		}
		if st.run.at == st.run.end {
			return nil
		}
		if st.ctx.Err() != nil {
			return context.Cause(st.ctx)
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
	}
	return nil
}

// wrote notes that p, the next bytes of the run, are in the file, and hashes them if it is their turn.
func (st *stream) wrote(p []byte, asked time.Time) {
	f, now, n, at := st.f, time.Now(), int64(len(p)), st.run.at
	f.mu.Lock()
	f.plan.got(st.run, n)
	again := f.retry.fruitless > 0
	f.retry.got(n)
	fresh := st.gained == 0
	if fresh {
		st.began = now
		f.pace.opened(now.Sub(asked))
	}
	st.gained += n
	if f.pace.note(n, f.active, now) || st.ending(now) || again {
		f.grow()
	}
	f.told(n, fresh || f.plan.left == 0)
	if f.unsynced += n; f.unsynced >= syncEvery {
		f.unsynced = 0
		f.syncSoon()
	}
	f.mu.Unlock()
	if f.hashing.TryLock() {
		if f.hashed.Load() == at {
			f.hash.Write(p)
			f.hashed.Add(n)
			f.hashing.Unlock()
			return
		}
		f.hashing.Unlock()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plan.has(f.hashed.Load()) {
		f.prod()
	}
}

// ending reports whether it is time for a successor: what is left comes in about the time that an answer takes. The caller
// holds mu.
func (st *stream) ending(now time.Time) bool {
	took, left := now.Sub(st.began), st.run.end-st.run.at
	if st.retired || st.f.single || took <= 0 || left > st.gained ||
		float64(left)*took.Seconds() > float64(st.gained)*st.f.pace.latency.Seconds() {
		return false
	}
	st.f.retire(st)
	return true
}

// syncSoon makes what is there durable in the background, unless that is going on already. The caller holds mu.
func (f *fill) syncSoon() {
	select {
	case f.syncing <- struct{}{}:
		bits := f.plan.bits() // before the fsync: the map is never ahead of the data
		go func() {           // ends before the fill does: see run
			if err := f.file.sync(bits); err != nil && !errors.Is(err, errLost) {
				f.s.log.Error("sync fill", "digest", f.digest, "error", err)
			}
			<-f.syncing
		}()
	default:
	}
}
