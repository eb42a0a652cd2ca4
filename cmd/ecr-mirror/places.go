package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// ownName names a mirror's own destination in the keys of its jobs; the others go by their hosts.
const ownName = "destination"

// place is one destination of one mirror, with the source that it is compared with.
type place struct {
	mirror      string   // the mirror's name in the keys of its jobs
	names       []string // what pulls call it
	name        string   // the destination's name in the keys of its jobs
	source      upstream
	destination upstream
	rules       *rules.Part // that end there
	trail       func(*replicate.Queue) *replicate.Trail
	deletes     *config.Deletion // nil: deletions stay at the source
	settings    *settling        // nil: settings are not compared
}

// places returns every destination that cfg names. Nothing is asked of a registry.
func places(ctx context.Context, cfg *config.Config, up upstreams) ([]place, error) {
	var all []place
	for i := range cfg.Mirrors {
		c := &cfg.Mirrors[i]
		src, err := up.open(ctx, c.Source)
		if err != nil {
			return nil, fmt.Errorf("mirror %s: source: %w", c.Names[0], err)
		}
		at, err := placesOf(ctx, c, chainOf(cfg), src, up)
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", c.Names[0], err)
		}
		all = append(all, at...)
	}
	return all, nil
}

// placesOf returns the destinations of the mirror c, its own first.
func placesOf(ctx context.Context, c *config.Mirror, links chain, src upstream, up upstreams) ([]place, error) {
	var all []place
	var deletes *config.Deletion
	if c.Replication.Deletes == "propagate" {
		deletes = &c.Replication.Deletion
	}
	for _, t := range c.Targets() {
		name := t.Registry.Host()
		if t.Own {
			name = ownName
		}
		dst, err := up.open(ctx, t.Registry)
		if err != nil {
			return nil, fmt.Errorf("destination %s: %w", t.Registry.Host(), err)
		}
		at := place{c.Names[0], c.Names, name, src, dst, t.Rules, links.trail(leg{c.Source.ID(), t.Registry.ID(), t.Rules}), deletes, nil}
		at.settings = newSettling(c, t, at, cmp.Or(up.log, slog.New(slog.DiscardHandler)))
		all = append(all, at)
	}
	return all, nil
}

// wants reports whether the rules want what the job is for: for itself, or as something about an image that they want.
func (p *place) wants(j *replicate.Job) bool {
	j.Follow = p.rules.Follows(j.Repo, j.Tag)
	return j.Follow || p.rules.Match(j.Repo, j.Tag)
}

// sweep compares the place's source with its destination.
func (p *place) sweep(queue *replicate.Queue) *replicate.Sweep {
	return &replicate.Sweep{Mirror: p.mirror, Destination: p.name, Source: p.source, Target: p.destination,
		Repo: p.rules.There, Platforms: p.rules.Platforms, Wants: p.rules.Match, WantsRepo: p.rules.MatchRepo, Queue: queue, Trail: p.trail(queue)}
}

// imageRef is REPO:TAG or REPO@DIGEST, with or without a registry that one of the mirrors has as a name.
type imageRef struct {
	repo, tag string
	digest    digest.Digest // "" with a tag
}

// parseRef returns what text names and at which of the places: without a registry, at those of the first mirror.
func parseRef(text string, all []place) (imageRef, []place, error) {
	invalid := func(why string) error {
		return registry.Errorf(registry.Invalid, "%.300q: %s; want REPOSITORY:TAG or REPOSITORY@DIGEST, with or without a registry before it", text, why)
	}
	if len(all) == 0 {
		return imageRef{}, nil, registry.Errorf(registry.Invalid, "no mirror has a destination")
	}
	at := slices.DeleteFunc(slices.Clone(all), func(p place) bool { return p.mirror != all[0].mirror })
	if host, rest, ok := strings.Cut(text, "/"); ok {
		named := slices.DeleteFunc(slices.Clone(all), func(p place) bool { return !slices.Contains(p.names, strings.ToLower(host)) })
		if len(named) > 0 {
			text, at = rest, named
		} else if strings.ContainsAny(host, ".:") {
			return imageRef{}, nil, invalid("no mirror with a destination has the name " + host)
		}
	}
	named, err := reference.Parse(text)
	if err != nil {
		return imageRef{}, nil, invalid(err.Error())
	}
	var r imageRef
	if n, ok := named.(reference.Named); ok {
		r.repo = n.Name()
	}
	if t, ok := named.(reference.Tagged); ok {
		r.tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.tag, r.digest = "", d.Digest() // as in a pull, the digest decides
	}
	if r.repo == "" || r.tag == "" && r.digest == "" {
		return imageRef{}, nil, invalid("no tag and no digest")
	}
	return r, at, nil
}
