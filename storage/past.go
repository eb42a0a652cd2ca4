package storage

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// openPast reads from upstream, past a store that has no room. A whole body still ends well only if its digest matches;
// of a range nothing can be said.
func (v *view) openPast(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := v.up.Open(v.s.wary(ctx, o.Digest), o, r)
	if err != nil {
		return nil, err
	}
	v.s.metrics.uncached.Inc()
	body := io.Reader(c.ReadCloser)
	if c.Range.Length == c.Descriptor.Size {
		body = &tail{r: registry.Verify(body, o.Digest, c.Descriptor.Size), left: c.Descriptor.Size}
	}
	c.ReadCloser = past{body, c.ReadCloser, v.s, o.Digest, c.From}
	return c, nil
}

// past counts what goes by. It hides a Spanner, whose bytes would bypass the verification.
type past struct {
	io.Reader
	c    io.Closer
	s    *Store
	d    digest.Digest
	from registry.Reader
}

func (p past) Read(b []byte) (int, error) {
	n, err := p.Reader.Read(b)
	if errors.Is(err, registry.Corrupt) {
		p.s.doubt(p.d, p.from)
	}
	return n, err
}

func (p past) Close() error { return p.c.Close() }

// tail holds back the last withheld bytes of left until r has ended without an error.
type tail struct {
	r    io.Reader
	left int64 // bytes that r has not given yet
	last []byte
	done bool
}

func (t *tail) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if free := t.left - withheld; free > 0 {
		n, err := t.r.Read(p[:min(int64(len(p)), free)])
		t.left -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return n, err
	}
	if !t.done {
		last, err := io.ReadAll(t.r)
		if err != nil {
			return 0, err
		}
		t.last, t.done = last, true
	}
	if len(t.last) == 0 {
		return 0, io.EOF
	}
	n := copy(p, t.last)
	t.last = t.last[n:]
	return n, nil
}
