package registry

import (
	"context"
	"fmt"
	"reflect"
	"slices"
)

// Tiers asks readers in order: a nearer or cheaper place first. It moves on after NotFound, Denied, Throttled, Unavailable
// and Corrupt, so that one broken place does not hide another that works. Absence is never invented: the answer is
// NotFound only if every tier said so; else it is the first other error, with its tier's name. A tier's name is its
// String method; see Named. A tier that WithDoubt names is asked last.
//
// Meant for immutable objects. Resolve follows the same order, which for tags is a policy of its own: see registry/mirror.
func Tiers(tiers ...Reader) Reader { return &tiered{tiers} }

type tiered struct{ tiers []Reader }

func (t *tiered) Resolve(ctx context.Context, repo, tag string) (Descriptor, error) {
	return first(ctx, t.tiers, func(r Reader) (Descriptor, error) { return r.Resolve(ctx, repo, tag) })
}

func (t *tiered) Stat(ctx context.Context, o Object) (Descriptor, error) {
	return first(ctx, t.tiers, func(r Reader) (Descriptor, error) { return r.Stat(ctx, o) })
}

func (t *tiered) Open(ctx context.Context, o Object, r Range) (*Content, error) {
	return first(ctx, t.tiers, func(tier Reader) (*Content, error) { return tier.Open(ctx, o, r) })
}

func first[T any](ctx context.Context, tiers []Reader, ask func(Reader) (T, error)) (T, error) {
	var zero T
	var absent, failed error
	for _, tier := range trusted(ctx, tiers) {
		v, err := ask(tier)
		if err == nil {
			return v, nil
		}
		switch ClassOf(err) {
		case NotFound:
			if absent == nil || CodeOf(err) != CodeNameUnknown { // "no such manifest" says more than "no such repository"
				absent = err
			}
		case Denied, Throttled, Unavailable, Corrupt:
			if failed == nil {
				failed = err
				if name, ok := tier.(fmt.Stringer); ok {
					failed = fmt.Errorf("%s: %w", name, err)
				}
			}
			if ctx.Err() != nil { // the caller is gone: the next tier would fail the same way
				return zero, failed
			}
		default:
			return zero, err
		}
	}
	switch {
	case failed != nil:
		return zero, failed
	case absent != nil:
		return zero, absent
	}
	return zero, Errorf(NotFound, "no tier to ask")
}

// trusted returns tiers with the one that the context doubts at the end.
func trusted(ctx context.Context, tiers []Reader) []Reader {
	doubted, ok := ctx.Value(doubtKey{}).(Reader)
	if !ok || !reflect.ValueOf(doubted).Comparable() { // comparing would panic
		return tiers
	}
	i := slices.IndexFunc(tiers, func(t Reader) bool { return reflect.ValueOf(t).Comparable() && t == doubted })
	if i < 0 {
		return tiers
	}
	return append(slices.Delete(slices.Clone(tiers), i, i+1), tiers[i])
}

// Named gives r a name for errors and logs; content it opens says that it is From the named reader.
func Named(name string, r Reader) Reader { return &named{r, name} }

type named struct {
	Reader
	name string
}

func (n *named) String() string { return n.name }

func (n *named) Open(ctx context.Context, o Object, r Range) (*Content, error) {
	c, err := n.Reader.Open(ctx, o, r)
	if err == nil {
		c.From = n
	}
	return c, err
}
