package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// ErrGone means that the source no longer has what was to be copied: there is nothing to do, and nothing is deleted. It
// comes wrapped.
var ErrGone = errors.New("gone from the source")

// Destination is a place that images are copied to.
type Destination struct {
	// Name tells destinations apart: no two that write to different registries share one. NewWorkers sets it.
	Name   string
	Writer registry.Writer // if it is a registry.Provisioner, missing repositories are created
	Reader registry.Reader // the same registry
	// Repo is what the destination calls a repository of the source; nil: the same.
	Repo func(string) string
	// Wants are the rules of today, for jobs that were written down under others; nil: everything. tag is "" for content.
	Wants func(repo, tag string) bool
	// Platforms choose among the images of the index that a tag names; nil: all.
	Platforms func(repo, tag string) rules.Platforms
	// Trail keeps what came from here from coming back; nil if the source is no mirror's destination and this no mirror's source.
	Trail *Trail
	// Remembers has the queue know even after a crash what was brought: what is deleted at the source is deleted here.
	Remembers bool
}

// Image says what is copied between which places.
type Image struct {
	Source      registry.Reader // content: the local store over the source, so that bytes cross regions once
	Tags        registry.Reader // tags: the source itself, which nothing between has an older answer for
	Lister      registry.Lister // of the source, for what is about the image; nil: that is not copied along
	Destination Destination
	Repo        string          // as the source names it
	Platforms   rules.Platforms // of the index that a tag names
	// Follow copies only what is about an image that the destination has; else ErrUnwanted.
	Follow bool
	// Settled reports whether an image that is found complete was complete with what is about it before; nil: none was.
	Settled func(digest.Digest) bool
	// Bringing is called before a manifest is written that the destination lacks; nil is fine. An error ends the copy.
	Bringing func(context.Context, digest.Digest) error
	// Progress is called when bytes have been sent, and with 0 when a step ended; nil is fine. Safe for concurrent use.
	Progress func(bytes int64)
	// Planned is called when it turns out that so many bytes more have to be sent, or, negative, need not; nil is fine. Safe for
	// concurrent use.
	Planned func(bytes int64)
}

// Result is what a copy did.
type Result struct {
	Digest digest.Digest // what the destination now has
	Bytes  int64         // sent
	Found  bool          // all was there already
	// Brought: the destination lacked the manifest itself. Without it at most the tag was written.
	Brought bool
	// Partial names the platforms that were chosen when others were not: their images are there, the index and the tag are not.
	Partial string
	// Pullable is when the image was complete. What is about it came after that.
	Pullable time.Time
	// Refused is why something that is about the image could not be copied; the first of several.
	Refused error
}

// Copier copies images bottom-up: blobs, child manifests, index, and the tag last. What the destination has is skipped.
// The zero value is ready. One Copier serves many copies at a time: they share uploads. Not to be copied after first use.
type Copier struct {
	Parallel int // uploads at a time for one image: 3

	claims claims
	mounts mounts
}

// Content makes the manifest d, all below it, and what is about it exist at the destination. ErrGone: the source has no such
// manifest. ErrEcho: it has it from this destination. ctx bounds the whole copy; what was sent until then stays.
func (c *Copier) Content(ctx context.Context, im Image, d digest.Digest) (Result, error) {
	t := c.transfer(im)
	if im.Follow {
		if err := t.follows(ctx, d); err != nil {
			return Result{}, err
		}
	}
	res, err := t.content(ctx, d)
	return t.finish(ctx, res, err)
}

func (t *transfer) content(ctx context.Context, d digest.Digest) (Result, error) {
	if err := t.echo("", d, ""); err != nil {
		return Result{}, err
	}
	root := registry.Object{Repo: t.repo, Kind: registry.Manifest, Digest: d}
	missing, err := t.missing(ctx, []registry.Object{root})
	if err != nil {
		return Result{}, err
	}
	if len(missing) == 0 {
		return Result{Digest: d, Found: true}, nil
	}
	tr, err := t.tree(ctx, d, nil)
	if err == nil {
		err = t.sendTree(ctx, tr, len(tr.levels))
	}
	if err = t.orGone(ctx, err, d); errors.Is(err, ErrGone) {
		return Result{}, err
	}
	return Result{Digest: d, Brought: true}, err
}

// finish completes the result of a copy, and copies what is about the image.
func (t *transfer) finish(ctx context.Context, res Result, err error) (Result, error) {
	if res.Pullable = time.Now(); err == nil && t.im.Lister != nil && !(res.Found && t.im.Settled != nil && t.im.Settled(res.Digest)) {
		err = t.company(ctx, res.Digest, &res)
	}
	res.Bytes = t.bytes.Load()
	return res, err
}

// transfer is one image under way.
type transfer struct {
	c     *Copier
	im    Image
	repo  string // as the destination names it
	bytes atomic.Int64
	sizes sync.Map // digest.Digest to int64: of blobs, as manifests say
}

func (c *Copier) transfer(im Image) *transfer {
	t := &transfer{c: c, im: im, repo: im.Repo}
	if im.Destination.Repo != nil {
		t.repo = im.Destination.Repo(im.Repo)
	}
	return t
}

func (t *transfer) progress(n int64) {
	t.bytes.Add(n)
	if t.im.Progress != nil {
		t.im.Progress(n)
	}
}

func (t *transfer) planned(n int64) {
	if t.im.Planned != nil && n != 0 {
		t.im.Planned(n)
	}
}

// orGone returns err, by which a copy failed, or ErrGone if that was because the source does not have d itself: it may have been
// deleted while parts of it were copied. If the source does not say, it is asked again by the next attempt.
func (t *transfer) orGone(ctx context.Context, err error, d digest.Digest) error {
	var at *placeError
	if registry.ClassOf(err) != registry.NotFound || !errors.As(err, &at) || at.destination {
		return err
	}
	_, why := t.im.Tags.Stat(ctx, registry.Object{Repo: t.im.Repo, Kind: registry.Manifest, Digest: d})
	t.progress(0)
	switch {
	case why == nil:
		return err
	case registry.ClassOf(why) == registry.NotFound:
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return atSource(why)
}
