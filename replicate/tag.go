package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// maxRounds bounds how often a tag that keeps moving is followed within one attempt.
const maxRounds = 5

// Tag makes tag name at the destination what it names at the source, with what is about it. It asks the source before it
// writes and again after, until the two agree, so the last writer of any number of jobs leaves the source's answer behind.
// Of an index of which not all platforms are wanted, the chosen images are copied: see Result.Partial. ErrGone: the source
// has no such tag. ErrEcho: it names what came from this destination. An immutable tag that names another digest is
// Conflict. ctx bounds the whole copy.
func (c *Copier) Tag(ctx context.Context, im Image, tag string) (Result, error) {
	t := c.transfer(im)
	if im.Follow {
		about, ok := rules.Subject(tag)
		if !ok {
			return Result{}, fmt.Errorf("tag %s: %w", tag, ErrUnwanted)
		}
		if err := t.there(ctx, about); err != nil {
			return Result{}, err
		}
	}
	res, err := t.tag(ctx, tag)
	return t.finish(ctx, res, err)
}

func (t *transfer) tag(ctx context.Context, tag string) (Result, error) {
	wrote := false
	var brought digest.Digest // was not there
	var last error
	for range maxRounds {
		want, err := t.sourceTag(ctx, tag)
		if err != nil {
			return Result{}, err
		}
		have, err := t.im.Destination.Reader.Resolve(ctx, t.repo, tag)
		t.progress(0)
		switch {
		case err == nil && have.Digest == want:
			return Result{Digest: want, Found: !wrote, Brought: wrote && brought == want}, t.im.Destination.Trail.seen(ctx, t.im.Repo, t.repo, tag, want)
		case err != nil && registry.ClassOf(err) != registry.NotFound:
			return Result{}, atDestination(err)
		}
		if err := t.echo(tag, want, have.Digest); err != nil {
			return Result{}, err
		}
		root, err := t.below(ctx, want)
		if root.gone { // a push or a delete came between: ask again
			last = err
			continue
		}
		if err != nil {
			return Result{}, err
		}
		now, err := t.sourceTag(ctx, tag) // the copy may have taken an hour
		if err != nil {
			return Result{}, err
		}
		if last = nil; now != want {
			continue
		}
		if root.partial {
			return Result{Digest: want, Partial: t.im.Platforms.String(), Found: root.found, Brought: !root.found}, nil
		}
		if !root.there {
			brought = want
		}
		if err := t.putManifest(ctx, tag, have.Digest, root.manifest, root.there); err != nil {
			return Result{}, err
		}
		wrote = true
	}
	if last == nil {
		last = registry.Errorf(registry.Unavailable, "tag %s:%s: source and destination disagree after %d rounds", t.im.Repo, tag, maxRounds)
	}
	return Result{}, last
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

// root is the manifest that a tag is to name, when all below it is at the destination.
type root struct {
	manifest
	partial bool // not all platforms are wanted: it cannot be there
	there   bool // the destination had it
	found   bool // the destination had all below it
	gone    bool // the source does not have it
}

// below makes all that the manifest d refers to exist at the destination. The caller sends d itself under its tag.
func (t *transfer) below(ctx context.Context, d digest.Digest) (root, error) {
	o := registry.Object{Repo: t.repo, Kind: registry.Manifest, Digest: d}
	missing, err := t.missing(ctx, []registry.Object{o})
	if err != nil {
		return root{}, err
	}
	if len(missing) == 0 { // only the tag is to be written
		m, _, err := t.readManifest(ctx, d)
		return root{manifest: m, there: true, found: true, gone: registry.ClassOf(err) == registry.NotFound}, err
	}
	tr, err := t.tree(ctx, d, t.im.Platforms)
	if err != nil {
		err = t.orGone(ctx, err, d)
		return root{gone: errors.Is(err, ErrGone)}, err
	}
	levels := tr.levels
	if !tr.partial[d] {
		levels = levels[:len(levels)-1]
	}
	if err := t.sendTree(ctx, tr, len(levels)); err != nil {
		err = t.orGone(ctx, err, d)
		return root{gone: errors.Is(err, ErrGone)}, fmt.Errorf("image %s: %w", d, err)
	}
	return root{manifest: tr.bodies[o], partial: tr.partial[d], found: len(levels) == 0}, nil
}
