package main

import (
	"log/slog"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// reapers carry deletions at the source on to those of the places where that is wanted.
func reapers(at []place, queue *replicate.Queue, metrics *replicate.ReaperMetrics, log *slog.Logger) (all []*replicate.Reaper) {
	for _, p := range at {
		if d := p.deletes; d != nil {
			all = append(all, replicate.NewReaper(replicate.ReaperOptions{Mirror: p.mirror, Destination: p.name, Queue: queue, Source: p.source,
				Target: p.destination, Repo: p.rules.There, Grace: d.Grace, Max: d.PerRun, Expired: d.Expired, Metrics: metrics, Logger: log}))
		}
	}
	return all
}

// deletions returns what is to be remembered of changes for the reapers. Which tag it was does not matter, and often nobody
// tells: the reaper knows what this mirror brought.
func (w *wiring) deletions(source string, changes []registry.Change) (all []replicate.Deletion) {
	for _, c := range changes {
		for _, p := range w.places {
			if d, ok := replicate.DeletionOf(w.name, p.name, c); ok && p.deletes != nil && sameRegistry(c.Registry, source) && p.rules.MatchRepo(c.Repo) {
				all = append(all, d)
			}
		}
	}
	return all
}
