package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Resolve implements registry.Reader: one HEAD, or a GET too where the registry answers HEAD without digest or size.
func (r *Registry) Resolve(ctx context.Context, repo, tag string) (d registry.Descriptor, err error) {
	defer within(&err, "resolve %s:%s", repo, tag)
	if err := errors.Join(wire.CheckRepo(repo), checkTag(tag)); err != nil {
		return registry.Descriptor{}, err
	}
	return r.statManifest(ctx, repo, tag)
}

// Stat implements registry.Reader: one HEAD, like Resolve.
func (r *Registry) Stat(ctx context.Context, o registry.Object) (d registry.Descriptor, err error) {
	defer within(&err, "stat %v", o)
	if err := checkObject(o); err != nil {
		return registry.Descriptor{}, err
	}
	if o.Kind == registry.Manifest {
		d, err = r.statManifest(ctx, o.Repo, o.Digest.String())
		if err == nil && d.Digest != o.Digest {
			return registry.Descriptor{}, registry.Errorf(registry.Corrupt, "registry says it is %s", d.Digest)
		}
		return d, err
	}
	resp, err := r.expect(ctx, call{method: http.MethodHead, path: path(o), scopes: pull(o.Repo)}, http.StatusOK)
	if err != nil {
		return registry.Descriptor{}, absent(err, codeOf(o.Kind))
	}
	resp.Body.Close()
	if resp.ContentLength < 0 {
		return registry.Descriptor{}, registry.Errorf(registry.Unavailable, "answer without a size")
	}
	return registry.Descriptor{MediaType: blobType(resp.Header), Digest: o.Digest, Size: resp.ContentLength}, nil
}

func (r *Registry) statManifest(ctx context.Context, repo, ref string) (registry.Descriptor, error) {
	resp, err := r.expect(ctx, call{method: http.MethodHead, path: wire.ManifestPath(repo, ref), scopes: pull(repo), accept: registry.ManifestTypes()}, http.StatusOK)
	if err != nil {
		return registry.Descriptor{}, absent(err, registry.CodeManifestUnknown)
	}
	resp.Body.Close()
	d := registry.Descriptor{MediaType: mediaType(resp.Header), Digest: digest.Digest(resp.Header.Get("Docker-Content-Digest")), Size: resp.ContentLength}
	if d.Digest.Validate() != nil || d.Size <= 0 || d.MediaType == "" {
		d, _, err = r.getManifest(ctx, repo, ref)
		return d, err
	}
	if d.Size > registry.MaxManifestSize {
		return registry.Descriptor{}, registry.Errorf(registry.Invalid, "manifest of %d bytes, more than %d", d.Size, registry.MaxManifestSize)
	}
	return d, nil
}

// getManifest returns a manifest whose bytes have the digest that ref (unless it is a tag) and the registry say.
func (r *Registry) getManifest(ctx context.Context, repo, ref string) (registry.Descriptor, []byte, error) {
	var none registry.Descriptor
	resp, err := r.expect(ctx, call{method: http.MethodGet, path: wire.ManifestPath(repo, ref), scopes: pull(repo), accept: registry.ManifestTypes()}, http.StatusOK)
	if err != nil {
		return none, nil, absent(err, registry.CodeManifestUnknown)
	}
	defer resp.Body.Close()
	body, err := readAll(resp, registry.MaxManifestSize)
	if err != nil {
		return none, nil, err
	}
	desc := registry.DescriptorOf(mediaType(resp.Header), body)
	for _, d := range []digest.Digest{digest.Digest(resp.Header.Get("Docker-Content-Digest")), digest.Digest(ref)} {
		if d.Validate() == nil { // the header may be absent, ref a tag
			if err := registry.VerifyBytes(body, d); err != nil {
				return none, nil, err
			}
			desc.Digest = d
		}
	}
	if desc.MediaType == "" {
		links, err := registry.ParseManifest("", body)
		if err != nil {
			return none, nil, err
		}
		desc.MediaType = links.MediaType
	}
	return desc, body, nil
}

// Open implements registry.Reader. Manifests are verified, and served from memory; blobs are not verified.
func (r *Registry) Open(ctx context.Context, o registry.Object, rng registry.Range) (c *registry.Content, err error) {
	defer within(&err, "open %v", o)
	if err := checkObject(o); err != nil {
		return nil, err
	}
	if rng.Offset < 0 {
		return nil, outside(rng)
	}
	if rng.Length > math.MaxInt64-rng.Offset {
		rng.Length = -1
	}
	switch {
	case o.Kind == registry.Manifest:
		d, body, err := r.getManifest(ctx, o.Repo, o.Digest.String())
		if err != nil {
			return nil, err
		}
		return r.content(d, rng, func(clip registry.Range) io.ReadCloser {
			return io.NopCloser(bytes.NewReader(body[clip.Offset : clip.Offset+clip.Length]))
		})
	case rng.Length == 0: // HTTP cannot ask for nothing
		d, err := r.Stat(ctx, o)
		if err != nil {
			return nil, err
		}
		return r.content(d, rng, func(registry.Range) io.ReadCloser { return http.NoBody })
	}
	return r.openBlob(ctx, o, rng)
}

func (r *Registry) content(d registry.Descriptor, rng registry.Range, body func(registry.Range) io.ReadCloser) (*registry.Content, error) {
	clip, ok := rng.Clip(d.Size)
	if !ok {
		return nil, outside(rng)
	}
	return &registry.Content{Descriptor: d, Range: clip, From: r, ReadCloser: body(clip)}, nil
}

func (r *Registry) openBlob(ctx context.Context, o registry.Object, rng registry.Range) (*registry.Content, error) {
	header := wire.FormatRange(rng)
	resp, err := r.getBlob(ctx, o, header)
	if err != nil {
		var u *unsatisfied
		if errors.As(err, &u) {
			if strings.HasSuffix(u.contentRange, "*/0") && rng.Offset == 0 { // an empty blob has no range to give
				return r.content(registry.Descriptor{MediaType: blobType(nil), Digest: o.Digest}, rng, func(registry.Range) io.ReadCloser { return http.NoBody })
			}
			return nil, outside(rng)
		}
		return nil, absent(err, codeOf(o.Kind))
	}
	d := registry.Descriptor{MediaType: blobType(resp.Header), Digest: o.Digest}
	c, err := r.body(resp, d, rng, header != "")
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	c.Host = resp.Request.URL.Host
	return c, nil
}

// body makes a Content of an answer to a blob's GET, after checking that it is what was asked for.
func (r *Registry) body(resp *http.Response, d registry.Descriptor, rng registry.Range, ranged bool) (*registry.Content, error) {
	blob := &blobBody{ReadCloser: resp.Body}
	if resp.StatusCode == http.StatusOK {
		if d.Size = resp.ContentLength; d.Size < 0 {
			return nil, registry.Errorf(registry.Unavailable, "answer without a size")
		}
		c, err := r.content(d, rng, func(clip registry.Range) io.ReadCloser {
			blob.left = clip.Offset + clip.Length
			return blob
		})
		if err != nil {
			return nil, err
		}
		c.Sequential = ranged
		_, err = io.CopyN(io.Discard, blob, c.Range.Offset)
		return c, err
	}
	got, size, err := wire.ParseContentRange(resp.Header.Get("Content-Range"))
	if err != nil {
		return nil, err
	}
	if !ranged {
		return nil, registry.Errorf(registry.Unavailable, "206 to a request without a range")
	}
	if size < 0 {
		return nil, registry.Errorf(registry.Unavailable, "answer without a size")
	}
	d.Size = size
	if clip, ok := rng.Clip(size); !ok || clip != got || resp.ContentLength >= 0 && resp.ContentLength != got.Length {
		return nil, registry.Errorf(registry.Corrupt, "asked for bytes %d+%d, answered %d+%d of %d", rng.Offset, rng.Length, got.Offset, got.Length, size)
	}
	return r.content(d, rng, func(clip registry.Range) io.ReadCloser {
		blob.left = clip.Length
		return blob
	})
}

// blobBody reads exactly left bytes; a body that ends before is Unavailable, one that goes on is cut.
type blobBody struct {
	io.ReadCloser
	left int64
}

func (b *blobBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err == io.EOF && b.left > 0 {
		err = registry.Errorf(registry.Unavailable, "read: %w, %d bytes early", io.ErrUnexpectedEOF, b.left)
	}
	return n, err
}

func outside(r registry.Range) error {
	e := registry.Errorf(registry.Invalid, "range %d+%d: outside the object", r.Offset, r.Length)
	e.Code = wire.CodeRangeInvalid
	return e
}

// mediaType is a manifest's, without parameters; "" when the registry does not tell manifests from other bytes.
func mediaType(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || t == "application/octet-stream" || t == "text/plain" || t == "application/json" {
		return ""
	}
	return t
}

func blobType(h http.Header) string {
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil {
		return t
	}
	return "application/octet-stream"
}
