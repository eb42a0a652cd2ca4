package main

import (
	"context"
	"time"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// A front writes to no destination. What it misses is a job in its own queue file, as anywhere; but its workers do not copy: they
// send the job to the queue of events, where those who may write take it.

const (
	// handOverDelay is the longest that a front waits before it tries to send again: it is one small request.
	handOverDelay = time.Minute
	// handOverTime is how long a front that stops goes on trying: its disk may go with it.
	handOverTime = 5 * time.Second
)

// handOver connects a mirror's jobs to the queue of events.
func (w *wiring) handOver(ctx context.Context, c *config.Mirror) error {
	if c.Events.SQS == "" || len(w.places) == 0 {
		return nil
	}
	client, err := newQueue(ctx, c.Events.SQS, c.Source, w.up.aws)
	if err != nil {
		return err
	}
	w.jobs = &replicate.Mirror{HandOver: func(ctx context.Context, j replicate.Job) error {
		miss := registry.Change{Registry: c.Source.Host(), Repo: j.Repo, Tag: j.Tag, Digest: j.Digest, At: j.SeenAt}
		if j.Tag != "" {
			miss.Digest = j.Hint
		}
		if miss.At.IsZero() {
			miss.At = j.Created
		}
		return events.SendMiss(ctx, client, c.Events.SQS, miss)
	}}
	return nil
}

// handingOver works as long as ctx, and then a little longer if there is something to hand over.
func (a *app) handingOver(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		defer stop()
		late, cancel := context.WithTimeout(working, handOverTime)
		defer cancel()
		var left []replicate.Key
		for j, err := range a.queue.Jobs(late) {
			if err == nil && (j.State == replicate.Pending || j.State == replicate.Leased) {
				left = append(left, j.Key)
			}
		}
		if err := a.queue.Settle(late, left...); err != nil {
			a.log.Warn("jobs that no worker knows of yet stay in the cache directory", "jobs", a.queue.Pending().Waiting(), "error", err)
		}
	})()
	return a.workers.Run(working)
}
