package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// listenTo connects the sources of events. An event is acknowledged when what it asks for is on disk; that of a shared queue
// when it is done.
func (w *wiring) listenTo(ctx context.Context, m *mirror.Mirror, c *config.Mirror) error {
	w.taker = func(ctx context.Context, changes []registry.Change) error {
		h := w.heard(m, c.Source, changes)
		if err := w.queue.Put(ctx, h.jobs...); err != nil {
			return err
		}
		if err := w.queue.PutDeletions(ctx, h.deletions...); err != nil {
			return err
		}
		return h.reason
	}
	if c.Events.SQS != "" {
		client, err := newQueue(ctx, c.Events.SQS, c.Source, w.up.aws)
		if err != nil {
			return err
		}
		o := events.Options{Mirror: w.name, Client: client, QueueURL: c.Events.SQS, Logger: w.log, Handle: w.taker, DeadLetter: w.dead}
		if c.Events.Shared {
			o.Shared = &events.Shared{Stalled: func() int { return w.queue.Stalled(w.name) }}
			o.Handle = func(ctx context.Context, changes []registry.Change) error {
				h := w.heard(m, c.Source, changes)
				if err := w.lend(ctx, h.jobs); err != nil {
					return err
				}
				return h.reason
			}
		}
		q := events.NewSQS(o)
		w.metrics.MustRegister(q.Collectors()...)
		w.event = &part{"events of " + w.name, q.Run}
	}
	if hook := c.Events.Webhook; hook != nil {
		h, err := events.NewWebhook(events.WebhookOptions{Mirror: w.name, Name: hook.Path, TokenFile: hook.TokenFile, Logger: w.log, Handle: w.taker, DeadLetter: w.dead})
		if err != nil {
			return err
		}
		w.metrics.MustRegister(h.Collectors()...)
		w.hooks = map[string]http.Handler{hook.Path: h}
	}
	return nil
}

// heard is what changes ask for.
type heard struct {
	jobs      []replicate.Job
	deletions []replicate.Deletion // for the reapers, who know what this mirror brought: which tag it was does not matter
	reason    error                // events.ErrForeign, events.ErrUnwanted
}

// heard has the tags that moved at the source asked for anew, and returns what else is to be done. An event is a hint: what it
// says is never believed, only looked into.
func (w *wiring) heard(m *mirror.Mirror, source config.Registry, changes []registry.Change) (h heard) {
	for _, c := range changes {
		if !isOf(c.Registry, source) {
			h.reason = fmt.Errorf("registry %s, repository %s: %w", c.Registry, c.Repo, events.ErrForeign)
			continue
		}
		m.Invalidate(c.Repo, c.Tag)
		for _, p := range w.places {
			if j, ok := replicate.FromChange(w.name, p.name, c); ok && p.wants(&j) {
				h.jobs = append(h.jobs, j)
			}
			if d, ok := replicate.DeletionOf(w.name, p.name, c); ok && p.deletes != nil && p.rules.MatchRepo(c.Repo) {
				h.deletions = append(h.deletions, d)
			}
		}
	}
	if h.reason == nil && len(h.jobs)+len(h.deletions) == 0 && len(w.places) > 0 {
		h.reason = events.ErrUnwanted
	}
	return h
}

// lend returns when the jobs are done, or given up: until then the shared queue keeps them, for any replica.
func (w *wiring) lend(ctx context.Context, jobs []replicate.Job) error {
	var keys []replicate.Key
	for i := range jobs {
		jobs[i].Lent = true
		keys = append(keys, jobs[i].Key)
	}
	if err := w.queue.Put(ctx, jobs...); err != nil {
		return err
	}
	return w.queue.Settle(ctx, keys...)
}

// dead keeps a message that cannot become a job.
func (w *wiring) dead(ctx context.Context, body []byte, reason error) error {
	w.log.Warn("an event is a dead letter", "mirror", w.name, "why", reason)
	return w.queue.PutLetter(ctx, w.name, body, reason)
}

// isOf reports whether host is of the registry r: an ECR registry has several (dual-stack, FIPS, an emulator's), and events
// name it by account and region.
func isOf(host string, r config.Registry) bool {
	if h, ok := ecr.ParseHost(host); ok && r.IsECR() {
		return h.Region == r.Region && (h.Account == r.Account || r.Account == "")
	}
	return host == r.Host()
}
