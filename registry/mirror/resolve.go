package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// patience multiplies ResolveTimeout for an upstream that was too slow when it turns out that nobody else has an answer:
// a first call across regions also pays for the connection and the token.
const patience = 5

// outcome is what a resolve came to; every caller that waited for it gets the same.
type outcome struct {
	desc  registry.Descriptor
	tier  string        // who answered
	life  time.Duration // how long the answer is fresh
	age   time.Duration // how long ago an upstream said so
	stale bool          // it is the last known answer, because nobody could be asked
	err   error
}

func flightKey(lane registry.Lane, key string) string { return lane.String() + " " + key }

// Resolve implements registry.Reader by the policy in the package documentation. The context's Trace learns who answered
// ("local" for a fresh known answer) and, of an answer given because nobody could be asked, its age.
func (m *Mirror) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	o, ok := m.cached(repo, tag)
	switch {
	case ok && o.err == nil: // fresh, but of use only with what it names
		o.err = m.whole(ctx, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: o.desc.Digest})
	case !ok:
		// The lane is part of the key: a client does not wait in a backfill's queue.
		lane := registry.LaneOf(ctx)
		flight := m.flights.DoChan(flightKey(lane, tagKey(repo, tag)), func() (any, error) {
			return m.lookup(registry.Apart(context.Background(), ctx), repo, tag), nil
		})
		select {
		case <-ctx.Done():
			return registry.Descriptor{}, fmt.Errorf("resolve %s:%s: %w", repo, tag, ctx.Err())
		case r := <-flight:
			o = r.Val.(outcome)
		}
	}
	m.metrics.resolves.WithLabelValues(o.tier, registry.Result(o.err)).Inc()
	if o.err != nil {
		return registry.Descriptor{}, fmt.Errorf("resolve %s:%s: %w", repo, tag, o.err)
	}
	registry.TraceOf(ctx).SetTier(o.tier)
	m.metrics.age.Observe(o.age.Seconds())
	if o.stale {
		registry.TraceOf(ctx).SetStale(o.age)
	}
	return o.desc, nil
}

// cached answers from memory while what it knows is fresh.
func (m *Mirror) cached(repo, tag string) (outcome, bool) {
	e, now := m.tags.get(repo, tag), m.opts.Now()
	if now.Before(e.freshUntil) {
		return outcome{desc: e.desc, tier: "local", age: now.Sub(e.at)}, true
	}
	if now.Before(m.tags.goneUntil(repo, tag)) {
		gone := registry.Errorf(registry.NotFound, "not found a moment ago")
		gone.Code = registry.CodeManifestUnknown
		return outcome{tier: "local", err: gone}, true
	}
	return outcome{}, false
}

// lookup is one flight: it asks upstream, and remembers.
func (m *Mirror) lookup(ctx context.Context, repo, tag string) outcome {
	if o, ok := m.cached(repo, tag); ok { // another flight ended between the caller's look and this one
		return o
	}
	generation := m.tags.generation(repo, tag)
	o := m.ask(ctx, repo, tag, m.opts.ResolveTimeout)
	if o.err != nil && silent(o.err) {
		last, ok := m.lastKnown(ctx, repo, tag, o.err)
		if ok || !errors.Is(o.err, context.DeadlineExceeded) {
			return last
		}
		if o = m.ask(ctx, repo, tag, patience*m.opts.ResolveTimeout); o.err != nil && silent(o.err) {
			return o
		}
	}
	now := m.opts.Now()
	switch {
	case o.err == nil:
		m.tags.learned(repo, tag, o.desc, o.tier == m.source.name, now, now.Add(o.life), generation)
	case registry.ClassOf(o.err) == registry.NotFound:
		m.tags.gone(repo, tag, now.Add(m.opts.NegativeTTL), generation)
	}
	return o
}

// silent reports whether err leaves the question open, so that another registry or memory may answer it.
func silent(err error) bool {
	switch registry.ClassOf(err) {
	case registry.Throttled, registry.Unavailable, registry.Corrupt:
		return true
	}
	return false
}

// ask asks the authority, and the other registry where the authority's word is not the last.
func (m *Mirror) ask(ctx context.Context, repo, tag string, timeout time.Duration) outcome {
	first, second := m.authority, m.other
	d, err := first.ask(ctx, repo, tag, timeout)
	o := outcome{desc: d, tier: first.name, life: m.opts.TTL, err: err}
	absent := registry.ClassOf(err) == registry.NotFound
	if err == nil || second == nil || !absent && !silent(err) || absent && first == m.source {
		return o
	}
	d, err = second.ask(ctx, repo, tag, timeout)
	switch {
	case err == nil && absent:
		return outcome{desc: d, tier: second.name, life: m.opts.TTL}
	case err == nil: // a stand-in's answer: the authority is asked again soon
		return outcome{desc: d, tier: second.name, life: min(m.opts.TTL, m.opts.NegativeTTL)}
	case absent: // a destination lags: what the source says instead decides
		return outcome{tier: second.name, err: err}
	}
	return o // the authority was not heard: no answer of another makes the tag absent or forbidden
}

// lastKnown answers from memory or the store, when why kept everybody else from it. ok is false when nothing is known.
func (m *Mirror) lastKnown(ctx context.Context, repo, tag string, why error) (o outcome, ok bool) {
	d, at, ok := m.tags.last(repo, tag)
	age := max(m.opts.Now().Sub(at), 1) // 0 would mean that it is not stale
	if !ok || age > m.opts.StaleFor {
		return outcome{tier: m.authority.name, err: why}, false
	}
	if err := m.whole(ctx, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}); err != nil {
		return outcome{tier: "local", err: fmt.Errorf("%w (%v)", err, why)}, true
	}
	m.opts.Logger.Debug("stale answer", "repo", repo, "tag", tag, "digest", d.Digest, "age", age, "err", why)
	return outcome{desc: d, tier: "local", age: age, stale: true}, true
}
