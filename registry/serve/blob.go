package serve

import (
	"context"
	"net/http"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// smallBlob is the size in bytes up to which a blob is verified before its first byte is sent, so that a bad one is an error
// status instead of a cut. What the store withholds of larger ones is as much.
const smallBlob = 64 << 10

const blobType = "application/octet-stream"

// blob answers GET and HEAD of a blob.
func (x *exchange) blob() error {
	o := registry.Object{Repo: x.repo, Kind: registry.Blob, Digest: x.req.Digest}
	h := x.w.Header()
	h.Set("Accept-Ranges", "bytes") // on 206 too: SOCI refuses one without it
	if x.r.Method == http.MethodHead {
		d, end, err := within(x.ctx, x.patience(), func(ctx context.Context) (registry.Descriptor, error) { return x.mirror.Reader.Stat(ctx, o) })
		end()
		if err != nil {
			return err
		}
		x.identify(registry.Descriptor{Digest: o.Digest})
		x.begin(http.StatusOK, blobType, d.Size)
		return nil
	}
	rg, partial, err := wire.ParseRange(x.r.Header.Get("Range"))
	if err != nil {
		return err
	}
	if v := x.r.Header.Get("If-Range"); v != "" && v != `"`+o.Digest.String()+`"` {
		rg, partial = registry.Whole, false // the client's part is of something else
	}
	if x.redirect(o) {
		return nil
	}
	var small []byte
	c, end, err := within(x.ctx, x.patience(), func(ctx context.Context) (*registry.Content, error) {
		c, err := x.open(ctx, o, rg)
		if err == nil && !partial && c.Descriptor.Size <= smallBlob {
			if _, small, err = verified(c, o); err != nil {
				c.Close()
			}
		}
		if err == nil && ctx.Err() != nil { // the answer came, but too late
			c.Close()
			err = context.Cause(ctx)
		}
		return c, err
	})
	defer end()
	if err != nil {
		return err
	}
	defer c.Close()
	x.identify(registry.Descriptor{Digest: o.Digest})
	status := http.StatusOK
	if partial && c.Range.Length > 0 { // of an empty blob the whole is all there is to give
		status = http.StatusPartialContent
		h.Set("Content-Range", wire.FormatContentRange(c.Range, c.Descriptor.Size))
	}
	if small != nil {
		return x.write(blobType, small)
	}
	x.begin(status, blobType, c.Range.Length)
	if err := x.rc.Flush(); err != nil { // the body may take a while
		x.cut(err, true)
	}
	x.stream(c)
	return nil
}

// open opens o in rg. A range outside the blob is answered with its size: 416.
func (x *exchange) open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	if rg.Offset < 0 { // counted from the end, which has to be known
		d, err := x.mirror.Reader.Stat(ctx, o)
		if err != nil {
			return nil, err
		}
		rg = wire.Absolute(rg, d.Size)
	}
	c, err := x.mirror.Reader.Open(ctx, o, rg)
	if registry.ClassOf(err) != registry.Invalid || rg.Offset == 0 {
		return c, err
	}
	d, statErr := x.mirror.Reader.Stat(ctx, o)
	if statErr != nil {
		return nil, statErr
	}
	if _, ok := rg.Clip(d.Size); ok {
		return nil, err
	}
	x.w.Header().Set("Content-Range", wire.UnsatisfiedRange(d.Size))
	e := registry.Errorf(registry.Invalid, "range starts past the end of %d bytes", d.Size)
	e.Code = wire.CodeRangeInvalid
	return nil, e
}
