package presence

import (
	"context"
	"fmt"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// maxReferrers bounds how many referrers of one manifest are looked at.
const maxReferrers = 1000

// about notes in r what the source has that is about subjects, and which of the tags the destination has.
func (c *Check) about(ctx context.Context, r *Report, repo string, subjects []digest.Digest) error {
	var mu sync.Mutex // guards r
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, d := range subjects {
		g.Go(func() error {
			parts, err := c.referrers(ctx, repo, d)
			mu.Lock()
			defer mu.Unlock()
			r.Referrers = append(r.Referrers, parts...)
			return err
		})
		for _, tag := range rules.Companions(d) {
			g.Go(func() error {
				part, err := c.companion(ctx, repo, tag)
				mu.Lock()
				defer mu.Unlock()
				if part.Digest != "" {
					r.Tags = append(r.Tags, part)
				}
				return err
			})
		}
	}
	return g.Wait()
}

func (c *Check) referrers(ctx context.Context, repo string, d digest.Digest) (parts []Part, err error) {
	for ref, err := range c.Source.Referrers(ctx, repo, d, "") {
		switch {
		case err != nil && registry.ClassOf(err) == registry.Denied:
			return parts, nil
		case err != nil:
			return nil, fmt.Errorf("source: %w", err)
		case len(parts) == maxReferrers:
			return nil, registry.Errorf(registry.Invalid, "%s: more than %d referrers", d, maxReferrers)
		}
		parts = append(parts, Part{Digest: ref.Digest, Name: ref.ArtifactType})
	}
	return parts, nil
}

// companion returns what a tag that is about an image names at the source; nothing, if there is no such tag.
func (c *Check) companion(ctx context.Context, repo, tag string) (Part, error) {
	want, err := c.Source.Resolve(ctx, repo, tag)
	if err != nil && registry.ClassOf(err) == registry.NotFound {
		return Part{}, nil
	}
	if err != nil {
		return Part{}, fmt.Errorf("source: %w", err)
	}
	have, err := c.Destination.Resolve(ctx, c.repo(repo), tag)
	if err != nil && registry.ClassOf(err) != registry.NotFound {
		return Part{}, fmt.Errorf("destination: %w", err)
	}
	return Part{want.Digest, tag, have.Digest == want.Digest}, nil
}
