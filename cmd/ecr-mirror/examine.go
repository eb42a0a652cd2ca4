package main

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/presence"
)

// States of an image at a destination, further to those of jobs and of package presence.
const (
	stateExpired  = "expired"  // it was there: the destination's own lifecycle removed it
	stateUnwanted = "unwanted" // it is not there, and no rule wants it there
)

// entry is the status of one tag or image at one destination, as /status and `status --output json` give it.
type entry struct {
	Job         string        `json:"job"`                  // the key of its job, there is one or not
	Mirror      string        `json:"mirror"`               // its first name
	Destination string        `json:"destination"`          // "destination" for the mirror's own, else a host
	Repository  string        `json:"repository"`           // at the source
	Tag         string        `json:"tag,omitempty"`        // none: an image by its digest
	Digest      digest.Digest `json:"digest,omitempty"`     // what the tag names at the source, or was last known to
	Have        digest.Digest `json:"have,omitempty"`       // what the destination's tag names
	State       string        `json:"state"`                // one of those above
	PushedAt    time.Time     `json:"pushedAt,omitzero"`    // at the source
	PullableAt  time.Time     `json:"pullableAt,omitzero"`  // at the destination
	Lag         float64       `json:"lagSeconds,omitempty"` // from the push until it could be pulled
	Bytes       int64         `json:"bytes,omitempty"`      // sent for it; of an examined image that others brought, its size
	Attempts    int           `json:"attempts,omitempty"`   // of its job
	NextAt      time.Time     `json:"nextAt,omitzero"`      // of the next attempt
	Error       string        `json:"error,omitempty"`      // the last
	Missing     []string      `json:"missing,omitempty"`    // platforms and referrers that the destination lacks
}

// fromStatus is what the queue knows, without having asked a registry.
func fromStatus(s replicate.Status) entry {
	e := entry{Job: s.ID(), Mirror: s.Mirror, Destination: s.Destination, Repository: s.Repo, Tag: s.Tag, Digest: s.Content, State: s.State,
		PushedAt: s.SeenAt, PullableAt: s.PullableAt, Bytes: s.Bytes, Attempts: s.Attempts, NextAt: s.NextAt, Error: s.Err}
	e.lag()
	return e
}

func (e *entry) lag() {
	if !e.PushedAt.IsZero() && e.PullableAt.After(e.PushedAt) {
		e.Lag = e.PullableAt.Sub(e.PushedAt).Seconds()
	}
}

// examine asks the registries what all of places have of ref, and queue, unless it is nil, what it knows.
func examine(ctx context.Context, at []place, queue *replicate.Queue, ref imageRef) ([]entry, error) {
	found := make([]entry, len(at))
	g, ctx := errgroup.WithContext(registry.WithLane(ctx, registry.LaneEvent))
	g.SetLimit(8)
	for i, p := range at {
		g.Go(func() (err error) {
			found[i], err = p.examine(ctx, queue, ref)
			return err
		})
	}
	return found, g.Wait()
}

func (p *place) examine(ctx context.Context, queue *replicate.Queue, ref imageRef) (entry, error) {
	key := replicate.Key{Mirror: p.mirror, Destination: p.name, Repo: ref.repo, Tag: ref.tag, Digest: ref.digest}
	e := entry{Job: key.ID(), Mirror: p.mirror, Destination: p.name, Repository: ref.repo, Tag: ref.tag}
	if p.rules.There(ref.repo) == "" {
		e.State = stateUnwanted
		return e, nil
	}
	check := presence.Check{Source: p.source, Destination: p.destination, Repo: p.rules.There, Platforms: p.rules.Platforms(ref.repo, ref.tag)}
	var r presence.Report
	if ref.tag != "" {
		r = check.Tag(ctx, ref.repo, ref.tag)
	} else {
		r = check.Content(ctx, ref.repo, ref.digest)
	}
	e.Digest, e.Have, e.State = r.Digest, r.Have, string(r.State)
	e.PushedAt, e.PullableAt, e.Bytes = r.PushedAt, r.PullableAt, r.Bytes
	if r.Err != nil {
		e.Error = r.Err.Error()
	}
	for _, parts := range [][]presence.Part{r.Platforms, r.Referrers, r.Tags} {
		for _, part := range parts {
			if !part.Present {
				e.Missing = append(e.Missing, (part.Name + "@" + part.Digest.String()))
			}
		}
	}
	if err := e.record(queue, key); err != nil {
		return entry{}, err
	}
	if (r.State == presence.Absent || r.State == presence.Behind) && e.State == string(r.State) && !p.rules.Match(ref.repo, ref.tag) {
		e.State = stateUnwanted
	}
	e.lag()
	return e, nil
}

// record adds what the queue knows of k to what the registries said. They decide what is there; the queue says why not.
func (e *entry) record(queue *replicate.Queue, k replicate.Key) error {
	if queue == nil {
		return nil
	}
	missing := e.State == string(presence.Absent) || e.State == string(presence.Behind) || e.State == string(presence.Incomplete)
	content := k
	if content.Tag, content.Digest = "", e.Digest; e.Digest != "" {
		r, ok, err := queue.Receipt(content)
		switch {
		case err != nil:
			return err
		case ok && e.State == string(presence.Absent) && r.Partial == "":
			e.State = stateExpired
		case ok && !r.Found && !missing:
			e.PullableAt, e.Bytes = r.PullableAt, r.Bytes
			if !r.SeenAt.IsZero() {
				e.PushedAt = r.SeenAt
			}
		}
	}
	for _, key := range []replicate.Key{content, k} {
		if j, ok := queue.Job(key); ok {
			e.Attempts, e.NextAt = j.Attempts, j.NextAt
			if e.Error == "" {
				e.Error = j.Err
			}
			if missing {
				e.State = j.State.String()
			}
		}
	}
	return nil
}
