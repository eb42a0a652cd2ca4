package storage

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// told wakes followers for n more bytes in the file: at once if somebody may have waited for just these or there is a MiB,
// else within wakeAfter. The caller holds mu.
func (f *fill) told(n int64, atOnce bool) {
	f.untold += n
	switch {
	case atOnce || f.untold >= wakeBytes:
		f.tell()
	case f.timer == nil:
		f.timer = time.AfterFunc(wakeAfter, func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.tell()
		})
	}
}

// tell wakes all followers. The caller holds mu.
func (f *fill) tell() {
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	f.untold = 0
	close(f.wake)
	f.wake = make(chan struct{})
}

// await blocks until bytes after pos may be given out, and returns where they end; end is where the reader does. A probe may
// have the tail before it is verified.
func (f *fill) await(ctx context.Context, pos, end int64, probe bool) (int64, error) {
	var w *wait
	for {
		f.mu.Lock()
		to, err, wake := f.plan.avail(pos), f.err, f.wake
		if !f.verified && !probe {
			to = min(to, f.desc.Size-withheld)
		}
		done := to > pos || err != nil
		if !done && w == nil {
			w = &wait{pos, end}
			f.plan.waits = append(f.plan.waits, w)
			f.grow()
		} else if done && w != nil {
			f.plan.forget(w)
		}
		f.mu.Unlock()
		switch {
		case errors.Is(err, registry.Corrupt), errors.Is(err, errDamaged): // nobody knows which bytes are wrong
			return 0, err
		case to > pos:
			return to, nil
		case err != nil:
			return 0, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			f.mu.Lock()
			f.plan.forget(w)
			f.mu.Unlock()
			return 0, ctx.Err()
		}
	}
}

// errOvertaken says that the fill ended before it could be followed.
var errOvertaken = errors.New("fill has ended")

// reader returns a body of the whole fill, which is ready.
func (f *fill) reader(ctx context.Context) (*body, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	} else if f.ended {
		return nil, errOvertaken
	}
	file, err := os.Open(f.file.data.Name())
	if errors.Is(err, os.ErrNotExist) { // it is being published
		file, err = os.Open(f.s.blobPath(f.digest))
	}
	if err != nil {
		return nil, err
	}
	f.s.space.again(f.item, time.Now())
	f.readers++
	return &body{ctx: ctx, s: f.s, f: file, fill: f, item: f.item, end: f.desc.Size}, nil
}

// body is an object's bytes in a file of its own descriptor, complete or growing. It implements registry.Spanner. The
// file's offset is the body's position.
type body struct {
	ctx   context.Context // of the Open: bounds Read
	s     *Store
	f     *os.File
	end   int64
	fill  *fill // nil: complete
	probe bool  // see await
	item  *item // pinned until Close; nil once closed
}

// Span implements registry.Spanner.
func (b *body) Span(ctx context.Context, max int64) (*os.File, int64, error) {
	pos, err := b.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, 0, err
	}
	if pos >= b.end {
		return nil, 0, io.EOF
	}
	to := b.end
	if b.fill != nil {
		if to, err = b.fill.await(ctx, pos, b.end, b.probe); err != nil {
			return nil, 0, err
		}
	}
	return b.f, min(to-pos, b.end-pos, max), nil
}

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}
	f, n, err := b.Span(b.ctx, int64(len(p)))
	if err != nil {
		return 0, err
	}
	k, err := f.Read(p[:n])
	if err == io.EOF { // the file is shorter than it was
		err = registry.Errorf(registry.Internal, "read %s: %w", f.Name(), io.ErrUnexpectedEOF)
	}
	return k, err
}

// Close implements io.Closer. Closing again does nothing.
func (b *body) Close() error {
	b.s.mu.Lock()
	it := b.item
	b.item = nil
	if it != nil {
		b.s.space.unpin(it)
	}
	b.s.mu.Unlock()
	if it == nil {
		return nil
	}
	if f := b.fill; f != nil {
		f.mu.Lock()
		f.readers--
		f.prod()
		f.mu.Unlock()
	}
	return b.f.Close()
}
