package ecr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

var errStalled = errors.New("stalled: no byte for too long")

// layerBody yields exactly left bytes of a layer host's answer. It is cut when a Read waits longer than stall; a reader that
// itself is slow cuts nothing.
type layerBody struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	left   int64
	stall  time.Duration
}

func (b *layerBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.read(p)
	b.left -= int64(n)
	if b.left == 0 {
		return n, nil // an error after the last byte is nobody's concern
	}
	return n, err
}

// read reads once; the end of the answer is an error, for layerBody asks for no byte beyond what it was promised.
func (b *layerBody) read(p []byte) (int, error) {
	t := time.AfterFunc(b.stall, func() { b.cancel(errStalled) })
	n, err := b.body.Read(p)
	t.Stop()
	if err == nil || len(p) == n {
		return n, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if cause := context.Cause(b.ctx); cause != nil {
		err = cause
	}
	return n, &registry.Error{Class: registry.Unavailable, Err: fmt.Errorf("layer host: %w", err)}
}

// skip drops n bytes: the layer host ignored the range's start.
func (b *layerBody) skip(n int64) error {
	buf := make([]byte, min(n, 64<<10))
	for n > 0 {
		k, err := b.read(buf[:min(n, int64(len(buf)))])
		if n -= int64(k); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the download.
func (b *layerBody) Close() error {
	if b.left == 0 {
		b.read(make([]byte, 1)) // the end, so that the connection can be used again
	}
	err := b.body.Close()
	b.cancel(context.Canceled)
	return err
}
