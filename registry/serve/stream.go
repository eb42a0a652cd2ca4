package serve

import (
	"context"
	"io"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	// maxSpan is the most bytes sent between two looks at the write deadline: 1 MiB.
	maxSpan = 1 << 20
	// bufferSize is that of a copy through memory, for content that is not in a file.
	bufferSize = 128 << 10
)

// stream sends the body of c, or cuts the connection: early, in order, with nothing but content written.
func (x *exchange) stream(c *registry.Content) {
	var err error
	var left bool
	if s, ok := c.ReadCloser.(registry.Spanner); ok {
		left, err = x.spans(x.ctx, s, c.Range.Length)
	} else {
		var r io.Reader = c
		if c.Range == (registry.Range{Offset: 0, Length: c.Descriptor.Size}) {
			r = registry.Verify(c, x.req.Digest, c.Descriptor.Size) // what is in no file may have been verified by nobody
		}
		left, err = x.copy(r, c.Range.Length)
	}
	if err != nil {
		x.cut(err, left)
	}
}

// spans sends n bytes from a file, complete or growing, as they become ready. CopyN ends in sendfile: the writer is the
// server's own, and the source an *os.File behind a LimitedReader. left says that err is the client's doing.
func (x *exchange) spans(ctx context.Context, s registry.Spanner, n int64) (left bool, err error) {
	for x.bytes < n {
		f, ready, err := s.Span(ctx, min(maxSpan, n-x.bytes))
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return false, err
		}
		x.extendDeadline()
		sent, err := io.CopyN(x.w, f, ready)
		x.bytes += sent
		if err != nil {
			return err != io.EOF, err // EOF: the file is shorter than it should be
		}
	}
	return false, nil
}

// copy sends n bytes from r through a buffer. The last of them leave only once r has said that it ended well, for the verdict
// of a verifying reader comes with its end.
func (x *exchange) copy(r io.Reader, n int64) (left bool, err error) {
	buf := x.h.buffers.Get().(*[]byte)
	defer x.h.buffers.Put(buf)
	for x.bytes < n {
		got, err := r.Read((*buf)[:min(bufferSize, n-x.bytes)])
		last := x.bytes+int64(got) == n
		if last && err == nil {
			err = ended(r)
		}
		switch {
		case err == io.EOF && !last:
			return false, io.ErrUnexpectedEOF
		case err != nil && err != io.EOF:
			return false, err
		}
		x.extendDeadline()
		sent, err := x.w.Write((*buf)[:got])
		x.bytes += int64(sent)
		if err == nil && !last {
			err = x.rc.Flush() // what little came may be all for a while
		}
		if err != nil {
			return true, err
		}
	}
	return false, nil
}

// ended reads the end of r, which should be there.
func ended(r io.Reader) error {
	var extra [1]byte
	n, err := io.ReadFull(r, extra[:])
	if n > 0 {
		return registry.Errorf(registry.Corrupt, "content is longer than its range")
	}
	return err
}
