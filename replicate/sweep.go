package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// Sweep compares a source with one of its destinations and finds what events lost and what existed before them. It adds and
// moves; it never deletes.
type Sweep struct {
	Mirror, Destination string // as in a Key
	Source, Target      registry.Catalog
	// Repo is what the destination calls a repository of the source; nil: the same.
	Repo func(string) string
	// Wants are the rules; nil: everything. tag is "" for an image without one.
	Wants func(repo, tag string) bool
	// WantsRepo is false for repositories of which nothing is wanted, so that they are not listed; nil: list all.
	WantsRepo func(repo string) bool
	// Platforms are what the rules choose of the index that a tag names; nil: all.
	Platforms func(repo, tag string) rules.Platforms
	// Trail keeps what came from the destination from being found missing there; nil: nothing did.
	Trail *Trail
	// Queue knows what was at the destination before, and which tags are in conflict. Required.
	Queue *Queue
	// Interval is the time between the starts of two sweeps when Sweeping runs them, jittered by a tenth.
	Interval time.Duration
	// Force brings back what the destination's own lifecycle removed.
	Force bool
}

// Plan compares the images pushed at or after since, and all images of the repositories that full, unless it is nil, picks.
// It looks at the source's repositories one after another; one that cannot be compared is a problem of the plan's. The error
// is that the source could not be listed at all, or ctx's.
//
// What is found at the destination is noted in the queue's receipts: should it be missing later, it has expired.
func (s *Sweep) Plan(ctx context.Context, since time.Time, full func(repo string) bool) (*Plan, error) {
	p := &Plan{Problems: make(map[string]error)}
	again := maxAgain
	for repo, err := range s.Source.Repositories(ctx) {
		if err != nil {
			return nil, fmt.Errorf("sweep: source: %w", err)
		}
		if s.WantsRepo != nil && !s.WantsRepo(repo) {
			continue
		}
		from := since
		if full != nil && full(repo) {
			from = time.Time{}
		}
		err := s.compare(ctx, p, repo, from)
		for delay := time.Second; passes(err) && again > 0 && wait(ctx, delay); delay *= 2 {
			again--
			err = s.compare(ctx, p, repo, from)
		}
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			p.Problems[repo] = fmt.Errorf("sweep: %s: %w", repo, err)
		}
	}
	p.sort()
	return p, nil
}

// maxAgain bounds how often one plan asks again for what may pass: in an outage every repository fails.
const maxAgain = 10

func passes(err error) bool {
	c := registry.ClassOf(err)
	return err != nil && (c == registry.Throttled || c == registry.Unavailable)
}

// wait waits for d, or until ctx ends: false.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (s *Sweep) compare(ctx context.Context, p *Plan, repo string, since time.Time) error {
	wanted, err := s.wanted(ctx, repo, since)
	if err != nil || len(wanted) == 0 {
		return err
	}
	there, err := s.list(ctx, repo)
	if err != nil {
		return atDestination(err)
	}
	var found []Receipt
	var differences []Difference
	for _, img := range wanted {
		if img.follow && !there.follows(&img) {
			continue
		}
		d := img.Descriptor.Digest
		_, present := there.images[d]
		if present {
			found = append(found, Receipt{Key: s.key(repo, "", d), PullableAt: there.at, Found: true})
		}
		expired, part := false, ""
		if !present {
			r, ok, err := s.Queue.Receipt(s.key(repo, "", d))
			if err != nil {
				return err
			}
			expired, part = ok && r.Partial == "", r.Partial
		}
		bytes := img.Bytes
		if present {
			bytes = 0
		}
		differ := func(tag string) error {
			if echo, err := s.Trail.Echo(repo, there.repo, tag, d, there.tags[tag]); err != nil || echo {
				return err
			}
			diff := Difference{Key: s.key(repo, tag, d), Want: d, Have: there.tags[tag], PushedAt: img.PushedAt, Bytes: bytes, Follow: img.follow}
			switch {
			case tag != "" && diff.Have != "":
				diff.Action = MoveTag
				fixed, err := s.fixed(ctx, there, diff)
				if err != nil {
					return atDestination(err)
				}
				if fixed {
					diff.Action = KeepTag
				}
			case expired && !s.Force:
				diff.Action = Expired
			case tag != "":
				diff.Action = AddTag
			}
			if diff.Action.Copies() {
				bytes = 0 // what is sent once is counted once
			}
			differences = append(differences, diff)
			return nil
		}
		if len(img.Tags) == 0 && !present {
			if err := differ(""); err != nil {
				return err
			}
		}
		for _, tag := range img.Tags {
			if part != "" && s.Platforms != nil && s.Platforms(repo, tag).String() == part {
				continue // the images that are wanted were copied; index and tag cannot be there
			}
			if there.tags[tag] == d {
				found = append(found, Receipt{Key: s.key(repo, tag, d), Digest: d, PullableAt: there.at, Found: true})
			} else if err := differ(tag); err != nil {
				return err
			}
		}
	}
	p.Images += len(wanted)
	p.Differences = append(p.Differences, differences...)
	return s.Queue.note(ctx, found)
}

// candidate is an image of the source that may be missing at the destination.
type candidate struct {
	registry.Image
	follow bool // it is wanted only if it is about an image that is there
}

// wanted returns the source's images that the rules want, each with those of its tags that they want, and those that are about
// others.
func (s *Sweep) wanted(ctx context.Context, repo string, since time.Time) ([]candidate, error) {
	var images []candidate
	for img, err := range s.Source.Images(ctx, repo, since) {
		switch {
		case registry.CodeOf(err) == registry.CodeNameUnknown: // deleted meanwhile
			return nil, nil
		case err != nil:
			return nil, atSource(err)
		case s.Wants == nil:
			images = append(images, candidate{img, false})
			continue
		case len(img.Tags) == 0:
			if wants := s.Wants(repo, ""); wants || img.Subject != "" {
				images = append(images, candidate{img, !wants})
			}
			continue
		}
		var tags, about []string
		for _, t := range img.Tags {
			if s.Wants(repo, t) {
				tags = append(tags, t)
			} else if _, ok := rules.Subject(t); ok {
				about = append(about, t)
			}
		}
		if img.Tags = tags; len(tags) > 0 {
			images = append(images, candidate{img, false})
		}
		if img.Tags = about; len(about) > 0 {
			images = append(images, candidate{img, true})
		}
	}
	return images, nil
}

// follows reports whether the destination has what the image is about, and leaves it only the tags that are about that.
func (l *listing) follows(img *candidate) bool {
	has := func(d digest.Digest) bool { _, ok := l.images[d]; return ok }
	if len(img.Tags) == 0 {
		return has(img.Subject)
	}
	img.Tags = slices.DeleteFunc(slices.Clone(img.Tags), func(tag string) bool {
		about, _ := rules.Subject(tag)
		return !has(about)
	})
	return len(img.Tags) > 0
}

// listing is a repository of the destination.
type listing struct {
	repo   string // its name there
	at     time.Time
	images map[digest.Digest]struct{}
	tags   map[string]digest.Digest
	fixed  func(tag string) bool // nil: not asked yet
}

func (s *Sweep) list(ctx context.Context, repo string) (*listing, error) {
	l := &listing{repo: repo, at: time.Now(), images: make(map[digest.Digest]struct{}), tags: make(map[string]digest.Digest)}
	if s.Repo != nil {
		l.repo = s.Repo(repo)
	}
	for img, err := range s.Target.Images(ctx, l.repo, time.Time{}) {
		switch {
		case errors.Is(err, registry.NotFound): // it has no such repository: nothing is there
			return l, nil
		case err != nil:
			return nil, err
		}
		l.images[img.Descriptor.Digest] = struct{}{}
		for _, t := range img.Tags {
			l.tags[t] = img.Descriptor.Digest
		}
	}
	return l, nil
}

// fixed reports whether the destination refuses to move the tag: it says so itself, or it refused this very digest before.
func (s *Sweep) fixed(ctx context.Context, l *listing, d Difference) (bool, error) {
	if j, ok := s.Queue.Job(s.key(d.Repo, d.Tag, "")); ok && j.State == Conflict && j.Hint == d.Want {
		return true, nil
	}
	f, ok := s.Target.(registry.Fixer)
	if !ok {
		return false, nil
	}
	if l.fixed == nil {
		var err error
		if l.fixed, err = f.Fixed(ctx, l.repo); err != nil {
			return false, err
		}
	}
	return l.fixed(d.Tag), nil
}

// key is that of the tag's job, or without a tag that of the content's.
func (s *Sweep) key(repo, tag string, d digest.Digest) Key {
	k := Key{Mirror: s.Mirror, Destination: s.Destination, Repo: repo, Tag: tag}
	if tag == "" {
		k.Digest = d
	}
	return k
}
