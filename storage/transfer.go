package storage

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	firstDelay  = 100 * time.Millisecond
	maxDelay    = 5 * time.Second
	maxAttempts = 5       // without a single byte
	progress    = 1 << 20 // bytes after which delays start small again
)

// retry paces how a broken upstream is asked again. One that gives nothing is given up after maxAttempts; one that gives
// little is asked ever more slowly.
type retry struct {
	fruitless int
	delay     time.Duration
	gained    int64
}

// next notes that the last attempt brought n bytes, and returns how long to wait for the next; false: give up.
func (r *retry) next(n int64) (time.Duration, bool) {
	if r.gained += n; r.gained >= progress {
		r.delay, r.gained = 0, 0
	}
	if n > 0 {
		r.fruitless = 0
	}
	r.fruitless++
	r.delay = min(max(firstDelay, 2*r.delay), maxDelay)
	return r.delay/2 + rand.N(r.delay/2), r.fruitless <= maxAttempts
}

// reopen waits and asks for the rest: first the Reader that answered, then the members' upstreams in turn. gained is what
// the broken stream brought, cause why it broke.
func (f *fill) reopen(ctx context.Context, r *retry, gained int64, cause error) error {
	for try := 0; ; try++ {
		wait, ok := r.next(gained)
		if gained = 0; !ok {
			if registry.ClassOf(cause) == registry.Internal { // an unclassed error of a stream
				cause = registry.Errorf(registry.Unavailable, "%w", cause)
			}
			return fmt.Errorf("fill %s: upstream broke at byte %d of %d: %w", f.digest, f.have, f.desc.Size, cause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		up, p := f.from, f.origin
		if try > 0 {
			f.mu.Lock()
			p = f.order[(try-1)%len(f.order)]
			up = f.members[p].up
			f.mu.Unlock()
		}
		o := registry.Object{Repo: p.repo, Kind: p.kind, Digest: f.digest}
		if err := f.open(ctx, up, o, registry.Range{Offset: f.have, Length: -1}); err != nil {
			cause = err
			continue
		}
		if size := f.content.Descriptor.Size; size != f.desc.Size {
			return registry.Errorf(registry.Corrupt, "fill %s: size changed from %d to %d bytes", f.digest, f.desc.Size, size)
		}
		return nil
	}
}

// open asks up for r and makes the answer the content that pump reads. The upstream bounds the wait for its answer.
func (f *fill) open(ctx context.Context, up registry.Reader, o registry.Object, r registry.Range) error {
	ctx, cancel := context.WithCancelCause(ctx)
	c, err := up.Open(f.s.wary(ctx, f.digest), o, r)
	if err != nil {
		cancel(nil)
		return err
	}
	f.content, f.cancel = c, cancel
	return nil
}

// shut closes the open content, if any.
func (f *fill) shut() {
	if f.content != nil {
		f.content.Close()
		f.cancel(nil)
		f.content = nil
	}
}

// pump copies the open content into the file until it ends or breaks. A stream without a byte for StallTimeout is broken.
func (f *fill) pump(ctx context.Context) error {
	c, cancel := f.content, f.cancel
	stall := time.AfterFunc(f.s.opts.StallTimeout, func() {
		cancel(registry.Errorf(registry.Unavailable, "no byte for %v", f.s.opts.StallTimeout))
	})
	defer stall.Stop()
	buf := make([]byte, min(chunk, f.desc.Size-f.have))
	lastSync := f.have
	for f.have < f.desc.Size {
		stall.Reset(f.s.opts.StallTimeout)
		n, err := c.Read(buf[:min(int64(len(buf)), f.desc.Size-f.have)])
		stall.Stop()
		if n > 0 {
			f.s.metrics.upstream.Add(float64(n))
			if _, werr := f.s.write(f.file.data, buf[:n], f.have); werr != nil {
				return fmt.Errorf("%w: %w", errDisk, werr)
			}
			f.hash.Write(buf[:n])
			f.wrote(int64(n))
			if f.have-lastSync >= syncEvery {
				lastSync = f.have
				f.syncSoon(f.have)
			}
		}
		if err == io.EOF && f.have < f.desc.Size {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// syncSoon makes what is there durable in the background, unless that is going on already.
func (f *fill) syncSoon(have int64) {
	select {
	case f.syncing <- struct{}{}:
		go func() { // ends before the fill does: see idle
			if err := f.file.sync(have); err != nil {
				f.s.log.Error("sync fill", "digest", f.digest, "error", err)
			}
			<-f.syncing
		}()
	default:
	}
}
