package replicate

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// What is about an image keeps it company: its referrers, and the tags that cosign and the referrers tag schema make of its
// digest. They are copied after the image, with it; and by their own events (Image.Follow), for most are pushed later.

// ErrUnwanted means that nothing was copied: the rules do not want it any more, or they want it for an image that it is about,
// and there is none, or not at the destination: that image's own copy would bring it along. It comes wrapped.
var ErrUnwanted = errors.New("not wanted at the destination")

// Bounds on what is about one image, against hostile lists.
const (
	maxReferrers = 1000 // in all
	maxAbout     = 3    // referrers of referrers of referrers
)

// company copies what is about the manifests of the image. What a registry refuses is noted and fails nothing: ECR's strict
// schema refuses some referrers, and a principal may read images but not lists.
func (t *transfer) company(ctx context.Context, root digest.Digest, res *Result) error {
	subjects, err := t.subjects(ctx, root)
	if registry.ClassOf(err) == registry.NotFound { // deleted while it was copied, or before what is about it was asked for again
		return nil
	}
	if err != nil {
		return err
	}
	if res.Partial != "" {
		subjects = subjects[1:] // the index is not there: nothing can be about it
	}
	c := &company{t: t, res: res, seen: make(map[digest.Digest]bool)}
	for _, d := range subjects {
		c.seen[d] = true
	}
	if err := c.tags(ctx, subjects); err != nil {
		return err
	}
	for range maxAbout {
		if len(subjects) == 0 {
			return nil
		}
		if subjects, err = c.referrers(ctx, subjects); err != nil {
			return err
		}
	}
	return nil
}

// subjects returns root and the images below it that were to be copied. Attestations are left out: nothing is about them.
func (t *transfer) subjects(ctx context.Context, root digest.Digest) ([]digest.Digest, error) {
	_, links, err := t.readManifest(ctx, root)
	if err != nil {
		return nil, err
	}
	subjects := []digest.Digest{root}
	chosen, _ := t.im.Platforms.Choose(links.Manifests)
	for _, child := range chosen {
		if rules.Attests(child) == "" {
			subjects = append(subjects, child.Digest)
		}
	}
	return subjects, nil
}

// company is what was found about one image.
type company struct {
	t *transfer

	mu   sync.Mutex
	res  *Result
	seen map[digest.Digest]bool
}

// tags copies the tags that are about subjects.
func (c *company) tags(ctx context.Context, subjects []digest.Digest) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, d := range subjects {
		for _, tag := range rules.Companions(d) {
			g.Go(func() error {
				_, err := c.t.tag(ctx, tag)
				return c.tolerate(err)
			})
		}
	}
	return g.Wait()
}

// referrers copies what refers to subjects and returns it: what was there may lack what refers to it.
func (c *company) referrers(ctx context.Context, subjects []digest.Digest) (about []digest.Digest, err error) {
	var mu sync.Mutex
	var found []registry.Object
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, d := range subjects {
		g.Go(func() error {
			objects, err := c.list(gctx, d)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, objects...)
			return err
		})
	}
	if err := g.Wait(); err != nil || len(found) == 0 {
		return nil, err
	}
	missing, err := c.t.missing(ctx, found)
	if err != nil {
		return nil, err
	}
	for _, o := range missing {
		_, err := c.t.content(ctx, o.Digest)
		if err := c.tolerate(err); err != nil {
			return nil, fmt.Errorf("referrer %s: %w", o.Digest, err)
		}
	}
	for _, o := range found {
		about = append(about, o.Digest)
	}
	return about, nil
}

// list returns the referrers of d, those not seen before.
func (c *company) list(ctx context.Context, d digest.Digest) (found []registry.Object, err error) {
	for r, err := range c.t.im.Lister.Referrers(ctx, c.t.im.Repo, d, "") {
		c.t.progress(0)
		if err != nil {
			return found, c.tolerate(atSource(err))
		}
		c.mu.Lock()
		fresh := !c.seen[r.Digest] && len(c.seen) < maxReferrers && r.Digest.Validate() == nil
		if fresh {
			c.seen[r.Digest] = true
		}
		c.mu.Unlock()
		if fresh {
			found = append(found, registry.Object{Repo: c.t.repo, Kind: registry.Manifest, Digest: r.Digest})
		}
	}
	return found, nil
}

// tolerate notes a refusal; other errors are returned. That the source does not have it, or has it from the destination, is
// none: most images have no such tags, and a referrer may be deleted meanwhile.
func (c *company) tolerate(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrGone), errors.Is(err, ErrEcho):
		return nil
	case registry.ClassOf(err) == registry.NotFound, registry.ClassOf(err) == registry.Denied, registry.ClassOf(err) == registry.Invalid,
		registry.ClassOf(err) == registry.Conflict:
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.res.Refused == nil {
			c.res.Refused = err
		}
		return nil
	}
	return err
}

// follows returns ErrUnwanted unless the destination has what d is about.
func (t *transfer) follows(ctx context.Context, d digest.Digest) error {
	_, links, err := t.readManifest(ctx, d)
	if err != nil {
		if registry.ClassOf(err) == registry.NotFound {
			return fmt.Errorf("%w: %w", ErrGone, err)
		}
		return err
	}
	if links.Subject == nil {
		return fmt.Errorf("%s: %w", d, ErrUnwanted)
	}
	return t.there(ctx, links.Subject.Digest)
}

// there returns ErrUnwanted unless the destination has the manifest d. It creates no repository.
func (t *transfer) there(ctx context.Context, d digest.Digest) error {
	missing, err := t.im.Destination.Writer.Missing(ctx, t.repo, []registry.Object{{Repo: t.repo, Kind: registry.Manifest, Digest: d}})
	t.progress(0)
	if registry.CodeOf(err) == registry.CodeNameUnknown || err == nil && len(missing) > 0 {
		return fmt.Errorf("about %s: %w", d, ErrUnwanted)
	}
	return atDestination(err)
}
