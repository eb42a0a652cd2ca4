package serve

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// manifest answers GET and HEAD of a manifest by tag or digest. A manifest is read and verified before its first byte is
// sent. Accept and Range are not looked at: a digest has one media type, and a whole answer to a range is allowed.
func (x *exchange) manifest() error {
	type answer struct {
		desc registry.Descriptor
		body []byte
	}
	get := func(ctx context.Context, d digest.Digest) (a answer, err error) {
		o := registry.Object{Repo: x.repo, Kind: registry.Manifest, Digest: d}
		if x.r.Method == http.MethodGet {
			a.desc, a.body, err = read(ctx, x.mirror.Reader, o, registry.MaxManifestSize)
			return a, err
		}
		a.desc, err = x.mirror.Reader.Stat(ctx, o)
		a.desc.Digest = d
		return a, err
	}
	a, end, err := within(x.ctx, x.patience(), func(ctx context.Context) (a answer, err error) {
		if x.req.Tag == "" {
			return get(ctx, x.req.Digest)
		}
		a.desc, err = x.mirror.Reader.Resolve(ctx, x.repo, x.req.Tag)
		if err != nil || x.r.Method != http.MethodGet {
			return a, err
		}
		named := a.desc.Digest
		if a, err = get(ctx, named); err == nil || registry.ClassOf(err) != registry.NotFound {
			return a, err
		}
		// The tag may have moved since its answer was new, and what it named have been deleted.
		now, again := x.mirror.Reader.Resolve(ctx, x.repo, x.req.Tag)
		if again != nil || now.Digest == named {
			return a, cmp.Or(again, err)
		}
		return get(ctx, now.Digest)
	})
	end()
	if err != nil {
		return err
	}
	x.identify(a.desc)
	if x.r.Method == http.MethodHead {
		x.begin(http.StatusOK, a.desc.MediaType, a.desc.Size)
		return nil
	}
	return x.write(a.desc.MediaType, a.body)
}

// identify sets the headers that name content.
func (x *exchange) identify(d registry.Descriptor) {
	h := x.w.Header()
	h.Set("Docker-Content-Digest", d.Digest.String())
	h.Set("Etag", `"`+d.Digest.String()+`"`)
}

// read returns all of an object of at most limit bytes, verified.
func read(ctx context.Context, r registry.Reader, o registry.Object, limit int64) (registry.Descriptor, []byte, error) {
	c, err := r.Open(ctx, o, registry.Whole)
	if err != nil {
		return registry.Descriptor{}, nil, err
	}
	defer c.Close()
	if c.Descriptor.Size > limit {
		return registry.Descriptor{}, nil, registry.Errorf(registry.Corrupt, "read %v: %d bytes, more than %d", o, c.Descriptor.Size, limit)
	}
	return verified(c, o)
}

// verified returns all of c, which is o.
func verified(c *registry.Content, o registry.Object) (_ registry.Descriptor, body []byte, err error) {
	if h, ok := c.ReadCloser.(registry.Held); ok {
		body = h.Bytes()
	} else if body, err = io.ReadAll(registry.Verify(c, o.Digest, c.Descriptor.Size)); err != nil {
		return registry.Descriptor{}, nil, fmt.Errorf("read %v: %w", o, err)
	}
	d := c.Descriptor
	d.Digest = o.Digest
	if o.Kind == registry.Blob {
		return d, body, nil
	}
	if d.MediaType == "" {
		l, err := registry.ParseManifest("", body)
		if err != nil {
			return registry.Descriptor{}, nil, fmt.Errorf("read %v: %w", o, err)
		}
		d.MediaType = l.MediaType
	}
	return d, body, nil
}
