package registry

import (
	"context"
	"sync/atomic"
	"time"
)

// Lane is who waits for a call: limiters in front of a registry serve a lower lane first.
type Lane uint8

const (
	LaneClient   Lane = iota // a pull is waiting
	LaneEvent                // an event or a miss asked for replication
	LaneSweep                // a sweep found it
	LaneBackfill             // nobody waits
)

func (l Lane) String() string { return [...]string{"client", "event", "sweep", "backfill"}[l] }

type laneKey struct{}

// WithLane says who waits for the calls made with the context.
func WithLane(ctx context.Context, l Lane) context.Context {
	return context.WithValue(ctx, laneKey{}, l)
}

// LaneOf returns the context's lane; without one a client is assumed to wait.
func LaneOf(ctx context.Context) Lane {
	l, _ := ctx.Value(laneKey{}).(Lane)
	return l
}

type causeKey struct{}

// WithCause says for what the calls made with the context are made: what a tracer, which alone knows its type, finds again
// with CauseOf.
func WithCause(ctx context.Context, cause any) context.Context {
	return context.WithValue(ctx, causeKey{}, cause)
}

// CauseOf returns the context's cause, or nil.
func CauseOf(ctx context.Context) any { return ctx.Value(causeKey{}) }

// Apart returns base with the lane and the cause of asker: for work that asker began and that does not end with it.
func Apart(base, asker context.Context) context.Context {
	base = WithLane(base, LaneOf(asker))
	if cause := CauseOf(asker); cause != nil {
		base = WithCause(base, cause)
	}
	return base
}

type doubtKey struct{}

// WithDoubt has Tiers ask r last: it was caught with wrong bytes of what the context is used to ask for.
func WithDoubt(ctx context.Context, r Reader) context.Context {
	return context.WithValue(ctx, doubtKey{}, r)
}

// Trace collects what an access log wants to know of a read. Safe for concurrent use.
type Trace struct {
	tier atomic.Pointer[string]
	age  atomic.Int64
}

type traceKey struct{}

// WithTrace has the Readers called with the context note in t how they answered.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns the context's Trace, or a fresh one that nobody reads.
func TraceOf(ctx context.Context) *Trace {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return t
	}
	return new(Trace)
}

// SetTier notes which place answered: "local", "destination" or "source".
func (t *Trace) SetTier(name string) { t.tier.Store(&name) }

// Tier is "" until a tier answered.
func (t *Trace) Tier() string {
	if p := t.tier.Load(); p != nil {
		return *p
	}
	return ""
}

// SetStale notes that a tag was answered from memory because nobody could be asked, and the answer's age.
func (t *Trace) SetStale(age time.Duration) { t.age.Store(int64(age)) }

// Stale returns the age of a tag answered from memory during an outage, or 0.
func (t *Trace) Stale() time.Duration { return time.Duration(t.age.Load()) }
