package main

import (
	"log/slog"

	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// reapers carry deletions at the source on to those of the places where that is wanted.
func reapers(at []place, queue *replicate.Queue, metrics *replicate.ReaperMetrics, log *slog.Logger) (all []*replicate.Reaper) {
	for _, p := range at {
		if d := p.deletes; d != nil {
			all = append(all, replicate.NewReaper(replicate.ReaperOptions{Mirror: p.mirror, Destination: p.name, Queue: queue, Source: p.source,
				Target: p.destination, Repo: p.rules.There, Grace: d.Grace, Max: d.PerRun, Interval: d.Interval, Expired: d.Expired, Metrics: metrics, Logger: log}))
		}
	}
	return all
}
