package main

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// syncPage answers GET /plan, POST /sync (both one planLine to a line; force=true brings back what has expired) and GET /sync
// (the progress of the last one) to requests from this very host: they cost many calls.
type syncPage struct {
	planner planner
	slot    chan struct{}

	mu  sync.Mutex
	run *syncRun // the last one
}

func newSyncPage(p planner) *syncPage { return &syncPage{planner: p, slot: make(chan struct{}, 1)} }

func (p *syncPage) pages() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /plan": onlyFromHere(p.lines(func(ctx context.Context, force bool, line func(planLine) error) (int, error) {
			jobs, _, err := p.planner.plan(ctx, force, line)
			return len(jobs), err
		})),
		"POST /sync": onlyFromHere(p.lines(func(ctx context.Context, force bool, line func(planLine) error) (int, error) {
			run, err := p.planner.sync(ctx, force, line)
			if err != nil {
				return 0, err
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			p.run = run
			return run.sum.Jobs, nil
		})),
		"GET /sync": onlyFromHere(http.HandlerFunc(p.progress)),
	}
}

// lines answers with what do reports. The header leaves at once: a plan may take minutes. So how it ended is in its last line.
func (p *syncPage) lines(do func(ctx context.Context, force bool, line func(planLine) error) (jobs int, err error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		select {
		case p.slot <- struct{}{}:
			defer func() { <-p.slot }()
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(w).Encode(map[string]string{"error": "another plan is being made: ask again"}) // the client is gone: nothing to do
			return
		}
		_ = http.NewResponseController(w).Flush() // the last line says how it went
		out := json.NewEncoder(w)
		jobs, err := do(r.Context(), r.FormValue("force") == "true", func(l planLine) error { return out.Encode(l) })
		end := planEnd{Jobs: jobs}
		if err != nil {
			end.Error = err.Error()
		}
		_ = out.Encode(planLine{End: &end}) // as above
	})
}

func (p *syncPage) progress(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	run := p.run
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if run == nil {
		w.WriteHeader(statusOf(registry.NotFound))
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "nothing was synchronized since the mirror started"}) // the client is gone: nothing to do
		return
	}
	_ = json.NewEncoder(w).Encode(run.progress()) // as above
}
