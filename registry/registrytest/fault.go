package registrytest

import (
	"context"
	"io"
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Fault is what goes wrong with a body when At of its bytes have been read (of the range, not of the object). One of Err,
// Truncate, Corrupt and Stall is set.
type Fault struct {
	At       int64
	Err      error           // reads fail with it
	Truncate bool            // the body ends, as if all were well
	Corrupt  bool            // the byte at At is another; all others are right
	Stall    <-chan struct{} // reads wait until it is closed, the body is, or the context ends; then go on
}

func (f *Fault) wrap(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	return &faultyBody{ctx: ctx, fault: f, body: body, left: f.At, closed: make(chan struct{})}
}

type faultyBody struct {
	ctx    context.Context // the Content's, which bounds its reads
	fault  *Fault
	body   io.ReadCloser
	left   int64 // bytes until the fault; -1 when it is past
	once   sync.Once
	closed chan struct{}
}

func (b *faultyBody) Read(p []byte) (int, error) {
	if len(p) == 0 || b.left < 0 {
		return b.body.Read(p)
	}
	if b.left > 0 {
		n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
		b.left -= int64(n)
		return n, err
	}
	switch {
	case b.fault.Err != nil:
		return 0, b.fault.Err
	case b.fault.Truncate:
		return 0, io.EOF
	case b.fault.Stall != nil:
		select {
		case <-b.fault.Stall:
		case <-b.closed:
			return 0, registry.Errorf(registry.Unavailable, "read: body closed while stalled")
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	b.left = -1
	n, err := b.body.Read(p)
	if b.fault.Corrupt && n > 0 {
		p[0] ^= 0xff
	} else if b.fault.Corrupt && err == nil {
		b.left = 0 // nothing was read: the byte is still to come
	}
	return n, err
}

// Close may be called while a Read stalls.
func (b *faultyBody) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.body.Close()
}
