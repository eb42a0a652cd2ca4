package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

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
	// Platforms choose among the images of the index that a tag names; nil: all.
	Platforms func(repo, tag string) rules.Platforms
	// Trail keeps what came from here from coming back; nil if the source is no mirror's destination and this no mirror's source.
	Trail *Trail
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
	// Progress is called when bytes have been sent, and with 0 when a step ended; nil is fine. Safe for concurrent use.
	Progress func(bytes int64)
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
	if t.rootMissing(err, tr) {
		return Result{}, fmt.Errorf("%w: %w", ErrGone, err)
	}
	if err == nil {
		err = t.sendTree(ctx, tr, len(tr.levels))
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

// rootMissing reports whether tree failed because the source does not have the root itself.
func (t *transfer) rootMissing(err error, tr *tree) bool {
	var at *placeError
	return registry.ClassOf(err) == registry.NotFound && errors.As(err, &at) && !at.destination && tr.bytes == 0
}

// sendTree sends the blobs and the first n levels.
func (t *transfer) sendTree(ctx context.Context, tr *tree, n int) error {
	if err := t.send(ctx, tr.blobs, t.putBlob); err != nil {
		return err
	}
	for _, level := range tr.levels[:n] {
		err := t.send(ctx, level, func(ctx context.Context, o registry.Object) error {
			return t.putManifest(ctx, "", "", tr.bodies[o])
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// send makes objects, none of which needs another, exist at the destination, put sending those that it lacks. What another
// copy is sending is waited for, and sent here if the other fails.
func (t *transfer) send(ctx context.Context, objects []registry.Object, put func(context.Context, registry.Object) error) error {
	for len(objects) > 0 {
		mine, theirs := t.c.claims.take(t.im.Destination.Name, objects)
		if err := t.sendMine(ctx, mine, put); err != nil {
			return err
		}
		objects = slices.DeleteFunc(slices.Clone(objects), func(o registry.Object) bool { return theirs[o] == nil })
		for i := 0; i < len(objects); {
			sent, err := theirs[objects[i]].wait(ctx, t.progress)
			if err != nil {
				return err
			}
			if sent {
				objects = slices.Delete(objects, i, i+1)
			} else {
				i++
			}
		}
	}
	return nil
}

func (t *transfer) sendMine(ctx context.Context, mine []registry.Object, put func(context.Context, registry.Object) error) error {
	giveUp := func(o registry.Object, sent bool) { t.c.claims.giveUp(t.im.Destination.Name, o, sent) }
	missing, err := t.missing(ctx, mine) // asked under the claim: another copy may have sent it a moment ago
	lacks := make(map[registry.Object]bool, len(missing))
	for _, o := range missing {
		lacks[o] = true
	}
	for _, o := range mine {
		if err != nil || !lacks[o] {
			giveUp(o, err == nil)
		}
	}
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cmp.Or(t.c.Parallel, 3))
	for _, o := range mine {
		if !lacks[o] {
			continue
		}
		g.Go(func() error {
			err := put(ctx, o)
			giveUp(o, err == nil)
			return err
		})
	}
	return g.Wait()
}

// missing returns what of objects the destination lacks, in their order, creating the repository if that is what it lacks.
func (t *transfer) missing(ctx context.Context, objects []registry.Object) (missing []registry.Object, err error) {
	if len(objects) == 0 {
		return nil, nil
	}
	err = t.atDestination(ctx, func() error {
		missing, err = t.im.Destination.Writer.Missing(ctx, t.repo, objects)
		return err
	})
	return missing, err
}

func (t *transfer) putBlob(ctx context.Context, o registry.Object) error {
	if t.mount(ctx, o) {
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

// putManifest sends m, and has tag name it unless that is "". have is what the tag names so far.
func (t *transfer) putManifest(ctx context.Context, tag string, have digest.Digest, m manifest) error {
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
