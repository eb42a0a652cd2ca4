package main

import (
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// reap has deletions at the source carried on to the places, if the configuration says so.
func (w *wiring) reap(c *config.Mirror) {
	if c.Replication.Deletes != "propagate" {
		return
	}
	d := c.Replication.Deletion
	for _, p := range w.places {
		w.reapers = append(w.reapers, replicate.NewReaper(replicate.ReaperOptions{Mirror: w.name, Destination: p.name, Queue: w.queue,
			Source: p.source, Target: p.destination, Repo: p.rules.There, Grace: d.Grace, Max: d.PerRun, Expired: d.Expired,
			Metrics: w.reaped, Logger: w.log}))
	}
}

// deletions returns what is to be remembered of changes for the reapers. Which tag it was does not matter, and often nobody
// tells: the reaper knows what this mirror brought.
func (w *wiring) deletions(source string, changes []registry.Change) (all []replicate.Deletion) {
	if len(w.reapers) == 0 {
		return nil
	}
	for _, c := range changes {
		for _, p := range w.places {
			if d, ok := replicate.DeletionOf(w.name, p.name, c); ok && sameRegistry(c.Registry, source) && p.rules.MatchRepo(c.Repo) {
				all = append(all, d)
			}
		}
	}
	return all
}
