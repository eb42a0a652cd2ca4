package storage

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// doubtFor is how long an upstream that gave wrong bytes of a blob, or broke off for good, is asked for it after all others.
const doubtFor = 10 * time.Minute

// doubt is an upstream that failed a blob after its answer had begun: too late for registry.Tiers to move on.
type doubt struct {
	from  registry.Reader
	until time.Time
}

// doubt has the next download of d go elsewhere first. from may be nil: nobody had answered.
func (s *Store) doubt(d digest.Digest, from registry.Reader) {
	if from != nil {
		s.doubts.Add(d, doubt{from, time.Now().Add(doubtFor)})
	}
}

// wary returns ctx for asking upstream for d.
func (s *Store) wary(ctx context.Context, d digest.Digest) context.Context {
	if b, ok := s.doubts.Get(d); ok && time.Now().Before(b.until) {
		return registry.WithDoubt(ctx, b.from)
	}
	return ctx
}
