package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// Limits of /status: an examination asks registries, and a page looks at all jobs there are.
const (
	examineTime  = time.Minute
	examineAtOne = 4 // answers at a time; others wait
)

// statusAnswer is what GET /status answers.
type statusAnswer struct {
	Images []entry `json:"images"`
	Next   string  `json:"next,omitempty"` // the cursor of the next page, as the parameter after
}

// statusPage answers GET /status. With ref it asks the registries about one image; else it pages through what the queue knows:
// repository, tag and state pick, limit (100, at most 1000) bounds the page, after is the cursor of the page before.
type statusPage struct {
	queue  *replicate.Queue
	places []place
	slots  chan struct{}
}

func newStatusPage(queue *replicate.Queue, places []place) *statusPage {
	return &statusPage{queue, places, make(chan struct{}, examineAtOne)}
}

func (p *statusPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), examineTime)
	defer cancel()
	a, err := p.answer(ctx, r.URL.Query())
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(statusCode(err))
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client is gone: nothing to do
		return
	}
	_ = json.NewEncoder(w).Encode(a) // as above
}

func statusCode(err error) int {
	switch registry.ClassOf(err) {
	case registry.Invalid:
		return http.StatusBadRequest
	case registry.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

func (p *statusPage) answer(ctx context.Context, q url.Values) (statusAnswer, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return statusAnswer{}, registry.Errorf(registry.Unavailable, "too many ask: %w", ctx.Err())
	}
	if text := q.Get("ref"); text != "" {
		ref, at, err := parseRef(text, p.places)
		if err != nil {
			return statusAnswer{}, err
		}
		images, err := examine(ctx, at, p.queue, ref)
		return statusAnswer{Images: images}, err
	}
	o := replicate.StatusQuery{Repo: q.Get("repository"), Tag: q.Get("tag"), State: q.Get("state"), After: q.Get("after")}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return statusAnswer{}, registry.Errorf(registry.Invalid, "limit %.20q: want a number from 1", text)
		}
		o.Limit = n
	}
	page, next, err := p.queue.Status(ctx, o)
	a := statusAnswer{Images: []entry{}, Next: next}
	for _, s := range page {
		a.Images = append(a.Images, fromStatus(s))
	}
	return a, err
}
