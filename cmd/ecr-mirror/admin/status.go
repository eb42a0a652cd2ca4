package admin

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Limits of /status: an examination asks registries, and a page looks at all jobs there are.
const (
	examineTime  = time.Minute
	examineAtOne = 4 // answers at a time; others wait
)

// status answers GET /status.
type status struct {
	ask   func(context.Context, url.Values) (any, error)
	slots chan struct{}
}

func newStatus(ask func(context.Context, url.Values) (any, error)) *status {
	return &status{ask, make(chan struct{}, examineAtOne)}
}

func (s *status) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), examineTime)
	defer cancel()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		answer(w, nil, registry.Errorf(registry.Unavailable, "too many ask: %w", ctx.Err()))
		return
	}
	v, err := s.ask(ctx, r.URL.Query())
	answer(w, v, err)
}
