package replicate

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// How one object gets to the destination.

func (t *transfer) putBlob(ctx context.Context, o registry.Object) error {
	if t.mount(ctx, o) {
		t.planned(-t.size(o))
		return nil
	}
	from := o
	from.Repo = t.im.Repo
	return t.atDestination(ctx, func() error {
		c, err := t.im.Source.Open(ctx, from, registry.Whole) // before the upload: an open object is not evicted
		if err != nil {
			return atSource(err)
		}
		defer c.Close()
		d := registry.Descriptor{MediaType: c.Descriptor.MediaType, Digest: o.Digest, Size: c.Descriptor.Size}
		body := &body{r: c, progress: t.progress}
		err = t.im.Destination.Writer.PutBlob(ctx, t.repo, d, body)
		if err != nil && body.err != nil { // the upload failed because its bytes did
			return atSource(body.err)
		}
		return err
	})
}

// putManifest sends m, and has tag name it unless that is "". have is what the tag names so far; there says that m itself is at the
// destination.
func (t *transfer) putManifest(ctx context.Context, tag string, have digest.Digest, m manifest, there bool) error {
	if !there && t.im.Bringing != nil {
		if err := t.im.Bringing(ctx, m.desc.Digest); err != nil {
			return err
		}
	}
	if err := t.im.Destination.Trail.note(ctx, t.im.Repo, t.repo, tag, m.desc.Digest, have); err != nil {
		return err
	}
	err := t.atDestination(ctx, func() error {
		return t.im.Destination.Writer.PutManifest(ctx, t.repo, tag, m.desc, m.body)
	})
	if err == nil {
		t.c.mounts.note(t.im.Destination.Name, t.repo, m.blobs)
	}
	return err
}

// mount has the destination take the blob from another repository of its own, where it is known to be. It is an attempt:
// without it, or when it fails, the blob is sent.
func (t *transfer) mount(ctx context.Context, o registry.Object) bool {
	from := t.c.mounts.from(t.im.Destination.Name, t.repo, o.Digest, time.Now())
	if from == "" {
		return false
	}
	ok, err := t.im.Destination.Writer.Mount(ctx, o, from)
	t.progress(0)
	if !ok && err == nil {
		t.c.mounts.decline(t.im.Destination.Name, o.Digest, time.Now())
	}
	return ok && err == nil
}

// atDestination does op. If it fails for want of the repository, that is created and op done once more.
func (t *transfer) atDestination(ctx context.Context, op func() error) error {
	err := atDestination(op())
	if registry.CodeOf(err) == registry.CodeNameUnknown && isDestination(err) {
		if p, ok := t.im.Destination.Writer.(registry.Provisioner); ok {
			if err := p.CreateRepository(ctx, t.repo); err != nil {
				return atDestination(err)
			}
			err = atDestination(op())
		}
	}
	t.progress(0)
	return err
}

// body counts what is read of it and remembers how its own reading failed.
type body struct {
	r        io.Reader
	progress func(int64)
	err      error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if n > 0 {
		b.progress(int64(n))
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}
