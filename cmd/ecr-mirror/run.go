package main

import (
	"context"
	"errors"
	"slices"
)

// notReady says why the mirror should get no new clients.
func (a *app) notReady() []string {
	if a.draining.Load() {
		return []string{"shutting down"}
	}
	return nil
}

// run serves until ctx ends, then stops front, workers and store in this order: what one stage still needs outlives it.
func (a *app) run(ctx context.Context) error {
	registry := "nobody"
	if a.registryAddr != nil {
		registry = a.registryAddr.String()
	}
	a.log.Info("serving", "registry", registry, "admin", a.adminAddr.String(), "version", buildVersion())
	a.tell("READY=1") // the listeners take connections already
	context.AfterFunc(ctx, func() {
		a.draining.Store(true)
		a.tell("STOPPING=1")
	})
	err := runStages(ctx,
		a.front,
		slices.Concat([]part{a.working()}, a.events, a.sweeps, a.reaping()),
		append(a.keeping(), a.admin),
	)
	return errors.Join(err, a.close())
}

func (a *app) tell(state string) {
	if err := tellSystemd(state); err != nil {
		a.log.Warn("the service manager was not told", "state", state, "error", err)
	}
}

func (a *app) working() part {
	if !a.works {
		return part{"handing over", a.handingOver}
	}
	return part{"workers", a.workers.Run}
}

func (a *app) reaping() (parts []part) {
	for _, r := range a.reapers {
		parts = append(parts, part{"deletions", r.Run})
	}
	return parts
}

// work does the queue's jobs until ctx ends, without serving anybody.
func (a *app) work(ctx context.Context) error {
	return errors.Join(runStages(ctx, []part{{"workers", a.workers.Run}}, a.keeping()), a.close())
}

// keeping is what the others need to the end.
func (a *app) keeping() []part {
	parts := []part{{"store", a.store.Run}}
	for _, b := range a.budgets {
		parts = append(parts, part{"byte budget", b.Run})
	}
	return parts
}

// close gives back what newApp opened.
func (a *app) close() error {
	var errs []error
	if a.queue != nil {
		errs = append(errs, a.queue.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	errs = append(errs, a.traces.Close())
	return errors.Join(errs...)
}
