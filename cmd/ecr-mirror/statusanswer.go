package main

import (
	"context"
	"net/url"
	"strconv"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// statusAnswer is what GET /status answers.
type statusAnswer struct {
	Images []entry `json:"images"`
	Next   string  `json:"next,omitempty"` // the cursor of the next page, as the parameter after
}

// answerer answers GET /status. With ref it asks the registries about one image; else it pages through what the queue knows:
// repository, tag and state pick, limit (100, at most 1000) bounds the page, after is the cursor of the page before.
type answerer struct {
	queue  *replicate.Queue
	places []place
}

func (p *answerer) answer(ctx context.Context, q url.Values) (statusAnswer, error) {
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
