package replicate

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxRounds bounds how often a tag that keeps moving is followed within one attempt.
const maxRounds = 5

// Tag makes tag name at the destination what it names at the source. It asks the source before it writes and again after,
// until the two agree, so the last writer of any number of jobs leaves the source's answer behind. ErrGone: the source has
// no such tag. An immutable tag that names another digest is Conflict. ctx bounds the whole copy.
func (c *Copier) Tag(ctx context.Context, im Image, tag string) (Result, error) {
	t := c.transfer(im)
	wrote := false
	var last error
	for range maxRounds {
		want, err := t.sourceTag(ctx, tag)
		if err != nil {
			return Result{Bytes: t.bytes.Load()}, err
		}
		have, err := im.Destination.Reader.Resolve(ctx, t.repo, tag)
		t.progress(0)
		switch {
		case err == nil && have.Digest == want:
			return Result{Digest: want, Bytes: t.bytes.Load(), Found: !wrote, Brought: wrote && t.lacks == want}, nil
		case err != nil && registry.ClassOf(err) != registry.NotFound:
			return Result{Bytes: t.bytes.Load()}, atDestination(err)
		}
		root, gone, err := t.below(ctx, want)
		if gone { // a push or a delete came between: ask again
			last = err
			continue
		}
		if err != nil {
			return Result{Bytes: t.bytes.Load()}, err
		}
		now, err := t.sourceTag(ctx, tag) // the copy may have taken an hour
		if err != nil {
			return Result{Bytes: t.bytes.Load()}, err
		}
		if last = nil; now != want {
			continue
		}
		if err := t.putManifest(ctx, tag, root); err != nil {
			return Result{Bytes: t.bytes.Load()}, err
		}
		wrote = true
	}
	if last == nil {
		last = registry.Errorf(registry.Unavailable, "tag %s:%s: source and destination disagree after %d rounds", im.Repo, tag, maxRounds)
	}
	return Result{Bytes: t.bytes.Load()}, last
}

func (t *transfer) sourceTag(ctx context.Context, tag string) (digest.Digest, error) {
	d, err := t.im.Tags.Resolve(ctx, t.im.Repo, tag)
	t.progress(0)
	if registry.ClassOf(err) == registry.NotFound {
		return "", fmt.Errorf("%w: %w", ErrGone, atSource(err))
	}
	if err != nil {
		return "", atSource(err)
	}
	if err := d.Digest.Validate(); err != nil {
		return "", atSource(registry.Errorf(registry.Corrupt, "tag %s:%s: digest %q: %w", t.im.Repo, tag, d.Digest, err))
	}
	return d.Digest, nil
}

// below makes all that root refers to exist at the destination and returns root, which the caller sends under its tag.
// gone: the source does not have root.
func (t *transfer) below(ctx context.Context, root digest.Digest) (m manifest, gone bool, err error) {
	o := registry.Object{Repo: t.repo, Kind: registry.Manifest, Digest: root}
	missing, err := t.missing(ctx, []registry.Object{o})
	if err != nil {
		return manifest{}, false, err
	}
	if len(missing) == 0 { // only the tag is to be written
		m, _, err = t.readManifest(ctx, root)
		return m, registry.ClassOf(err) == registry.NotFound, err
	}
	t.lacks = root
	tr, err := t.tree(ctx, root)
	if err != nil {
		return manifest{}, t.rootMissing(err, tr), err
	}
	if err := t.sendTree(ctx, tr, len(tr.levels)-1); err != nil {
		return manifest{}, false, fmt.Errorf("image %s: %w", root, err)
	}
	return tr.bodies[o], false, nil
}
