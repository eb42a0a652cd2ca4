package admin

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Compare compares registries, and calls line with what becomes a line of JSON for everything that it finds. The last line says
// how it ended.
type Compare func(ctx context.Context, force bool, line func(any) error)

// compares answers GET /plan, POST /sync (both one JSON object to a line; force=true brings back what has expired) and GET /sync
// (the progress of the last one): they cost many calls.
type compares struct {
	o    Options
	slot chan struct{}
}

func newCompares(o Options) *compares { return &compares{o, make(chan struct{}, 1)} }

func (c *compares) routes(mux *http.ServeMux, who *guard) {
	mux.Handle("GET /plan", who.only(c.lines(c.o.Plan)))
	mux.Handle("POST /sync", who.only(c.lines(c.o.Sync)))
	mux.Handle("GET /sync", who.only(http.HandlerFunc(c.progress)))
}

// lines answers with what do reports. The header leaves at once: a plan may take minutes.
func (c *compares) lines(do Compare) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case c.slot <- struct{}{}:
			defer func() { <-c.slot }()
		default:
			answer(w, nil, registry.Errorf(registry.Unavailable, "another plan is being made: ask again"))
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = http.NewResponseController(w).Flush() // the last line says how it went
		do(r.Context(), r.URL.Query().Get("force") == "true", json.NewEncoder(w).Encode)
	})
}

func (c *compares) progress(w http.ResponseWriter, _ *http.Request) {
	p, ok := c.o.Progress()
	if !ok {
		answer(w, nil, registry.Errorf(registry.NotFound, "nothing was synchronized since the mirror started"))
		return
	}
	answer(w, p, nil)
}
