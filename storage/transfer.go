package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	firstDelay  = 100 * time.Millisecond
	maxDelay    = 5 * time.Second
	maxAttempts = 7                // without a single byte, some ten seconds,
	maxTrouble  = 30 * time.Second // or for so long when upstream says that it is busy
	progress    = 1 << 20          // bytes after which delays start small again
)

// retry paces how a broken upstream is asked again. One that gives nothing is given up after maxAttempts; one that gives
// little is asked ever more slowly.
type retry struct {
	fruitless int
	since     time.Time // of the first of these
	delay     time.Duration
	gained    int64
}

// got notes bytes.
func (r *retry) got(n int64) {
	r.fruitless = 0
	r.gained += n
}

// next notes an attempt that ended in err, and returns how long to wait before the next; false: give up.
func (r *retry) next(err error) (time.Duration, bool) {
	if r.gained >= progress {
		r.delay, r.gained = 0, 0
	}
	if r.fruitless++; r.fruitless == 1 {
		r.since = time.Now()
	}
	r.delay = min(max(firstDelay, 2*r.delay), maxDelay)
	wait := r.delay/2 + rand.N(r.delay/2)
	if after := retryAfter(err); after > 0 || registry.ClassOf(err) == registry.Throttled {
		wait += after
		return wait, time.Since(r.since)+wait < maxTrouble
	}
	return wait, r.fruitless <= maxAttempts
}

// transfer has streams bring what is wanted into the file, and hashes it. When it returns, no stream runs.
func (f *fill) transfer(ctx context.Context, stop context.CancelFunc) error {
	f.s.slots.enter(f.host)
	defer f.s.slots.leave(f.host)
	f.mu.Lock()
	if st := f.opening; st.run != nil {
		f.s.slots.take(f.host, 0, f.lane)
		f.launch(st)
	}
	f.spawn = func(r *run) { f.launch(newStream(registry.WithLane(ctx, f.lane), f, r)) }
	f.grow()
	f.mu.Unlock()
	err := f.watch(ctx)
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	stop()
	f.streams.Wait()
	if errors.Is(err, errDisk) {
		err = f.disk(err)
	}
	return err
}

// watch hashes what streams do not, until all is hashed, or the fill fails, or nobody wants more.
func (f *fill) watch(ctx context.Context) error {
	var idle <-chan time.Time
	for {
		if err := f.catchUp(ctx); err != nil {
			return err
		}
		f.mu.Lock()
		err, quiet := f.failure, f.quiet()
		f.mu.Unlock()
		switch {
		case err != nil:
			return err
		case f.hashed.Load() == f.desc.Size:
			return nil
		case !quiet:
			idle = nil
		case idle == nil:
			idle = time.After(linger)
		}
		select {
		case <-f.kick:
		case <-ctx.Done():
			return ctx.Err()
		case <-idle:
			if err := f.park(); err != nil {
				return err
			}
			idle = nil
		}
	}
}

// quiet reports whether nothing goes on and nothing will. The caller holds mu.
func (f *fill) quiet() bool {
	return !f.whole && f.active == 0 && !f.paused && f.readers == 0 && f.waiting.Load() == 0
}

// park takes a quiet fill out of the store and returns errParked: what it brought stays, unless the disk does not take it. It
// returns nil for one that is not quiet.
func (f *fill) park() error {
	lost := f.file.sync(f.bits())
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.quiet() {
		return nil
	}
	f.ended, f.err = true, errOvertaken
	if lost != nil {
		return fmt.Errorf("%w: %w", errDisk, lost)
	}
	delete(f.s.fills, f.digest)
	return errParked
}

// catchUp hashes from the page cache what arrived out of order.
func (f *fill) catchUp(ctx context.Context) error {
	f.hashing.Lock()
	defer f.hashing.Unlock()
	buf := f.s.buffers.Get().(*[]byte)
	defer f.s.buffers.Put(buf)
	for ctx.Err() == nil {
		at := f.hashed.Load()
		f.mu.Lock()
		to := f.plan.avail(at)
		f.mu.Unlock()
		if to == at {
			return nil
		}
		n, err := f.file.data.ReadAt((*buf)[:min(to-at, int64(len(*buf)))], at)
		if err != nil && (err != io.EOF || n == 0) {
			if f.resumed {
				return errDamaged
			}
			return fmt.Errorf("%w: %w", errDisk, err)
		}
		f.hash.Write((*buf)[:n])
		f.hashed.Add(int64(n))
	}
	return ctx.Err()
}

// grow starts streams while more are wanted and allowed. The caller holds mu.
func (f *fill) grow() {
	for f.spawn != nil && !f.paused && !f.over && f.failure == nil {
		most := f.pace.target
		if _, _, urgent := f.plan.urgent(); urgent {
			most = f.pace.most
		}
		if f.single || f.retry.fruitless > 0 {
			most = 1
		}
		if f.active >= most || !f.s.slots.take(f.host, f.active, f.lane) {
			return
		}
		size := f.pace.run(f.plan.left)
		if f.single {
			size = f.desc.Size
		}
		r, ok := f.plan.next(size, f.whole || f.single)
		if !ok {
			f.s.slots.give(f.host)
			return
		}
		f.spawn(r)
	}
}

// broke is told that st ended with err, in mid-run. The caller holds mu.
func (f *fill) broke(st *stream, err error) {
	switch {
	case f.failure != nil || f.over || f.s.ctx.Err() != nil:
		return
	case errors.Is(err, errDisk), registry.ClassOf(err) == registry.Corrupt:
		f.failure = err
		return
	case st.epoch < f.epoch: // the trouble is known
		return
	}
	wait, ok := f.retry.next(err)
	at := f.plan.avail(0)
	f.s.log.Warn("upstream broke, continuing", "digest", f.digest, "at", at, "of", f.desc.Size, "error", err)
	if !ok {
		if registry.ClassOf(err) == registry.Internal { // an unclassed error of a stream
			err = registry.Errorf(registry.Unavailable, "%w", err)
		}
		f.failure = fmt.Errorf("fill %s: upstream broke at byte %d of %d: %w", f.digest, at, f.desc.Size, err)
		return
	}
	if f.retry.fruitless == 2 { // others are asked from here on: see launch
		f.s.doubt(f.digest, f.from)
	}
	f.epoch++
	f.paused = true
	f.pace.back(time.Now())
	time.AfterFunc(wait, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.paused = false
		f.grow()
	})
}

func (f *fill) prod() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}
