package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/trace"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// freePercent of the cache's filesystem stay free.
const freePercent = 15

// adminConnections is more than any collector of metrics and any operator open.
const adminConnections = 64

// app is a configured mirror: all parts, wired and not yet running.
type app struct {
	metrics *prometheus.Registry
	log     *slog.Logger
	store   *storage.Store
	queue   *replicate.Queue
	traces  *trace.Tracer // nil: off
	workers *replicate.Workers
	works   bool // else the workers hand over
	events  []part
	sweeps  []part
	reapers []*replicate.Reaper
	compare []*replicate.Sweep           // all there are, running or not
	budgets map[string]*replicate.Budget // by mirror
	places  []place
	fronts  []front
	hooks   map[string]http.Handler  // of the registry's listener, by path
	purge   map[string]admin.Purger  // by the hosts that name mirrors; "": the first
	shown   []admin.Mirror           // on the admin page
	take    map[string]events.Handle // of events that are tried again, by mirror
	front   []part                   // none where no client has anything to ask
	admin   part

	registryAddr, adminAddr net.Addr
	draining                atomic.Bool
}

// newApp opens what cfg names: directories, files and listeners, but no upstream. base replaces the SDK's
// default chain of AWS credentials unless it is nil. The caller calls run or close.
func newApp(ctx context.Context, cfg *config.Config, base *aws.Config, log *slog.Logger) (_ *app, err error) {
	if err := cfg.Serving(); err != nil {
		return nil, err
	}
	a, err := assemble(ctx, cfg, base, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	var clients http.Handler = http.NotFoundHandler()
	if cfg.Fronts() {
		front, err := newFront(cfg.Limits, a.fronts, a.metrics, a.traces, log)
		if err != nil {
			return nil, err
		}
		a.metrics.MustRegister(front.Collectors()...)
		clients = a.traces.Front(front)
	}
	a.metrics.MustRegister(a.collectors()...)
	pages, err := a.adminHandler(cfg)
	if err != nil {
		return nil, err
	}
	return a, a.listen(cfg, routes{a.hooks, clients}, pages)
}

// assemble is newApp without the listeners and what is behind them. The caller calls work or close.
func assemble(ctx context.Context, cfg *config.Config, base *aws.Config, log *slog.Logger) (_ *app, err error) {
	a := &app{log: log, works: cfg.Works(), metrics: prometheus.NewRegistry(), hooks: make(map[string]http.Handler),
		purge: make(map[string]admin.Purger), take: make(map[string]events.Handle), budgets: make(map[string]*replicate.Budget)}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	metrics := a.metrics
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.store, err = storage.Open(storage.Options{Path: cfg.Cache.Path, Size: int64(cfg.Cache.Size), FreePercent: freePercent,
		FillOnProbe: cfg.Cache.FillOnProbe, Logger: log}); err != nil {
		return nil, err
	}
	metrics.MustRegister(a.store.Collectors()...)
	if a.queue, err = replicate.OpenQueue(queuePath(cfg)); err != nil {
		return nil, err
	}
	if !a.works {
		a.queue.MaxDelay = handOverDelay
	}
	limits := ecr.NewLimits()
	metrics.MustRegister(limits.Collectors()...)
	if c := cfg.Traces; c != nil {
		if a.traces, err = trace.New(ctx, trace.Options{Endpoint: c.Endpoint, Sample: float64(c.Sample), Version: buildVersion(), Logger: log}); err != nil {
			return nil, err
		}
		metrics.MustRegister(a.traces.Collectors()...)
	}
	up := upstreams{aws: base, limits: limits, tokens: newTokens(), traces: a.traces, log: log}
	metrics.MustRegister(up.tokens)

	jobs := make(map[string]replicate.Mirror)
	var timed []*replicate.Sweep
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		w := wiring{name: m.Names[0], store: a.store, queue: a.queue, up: up, metrics: metrics, log: log}
		if err := w.connect(ctx, cfg, m); err != nil {
			return nil, fmt.Errorf("mirror %s: %w", w.name, err)
		}
		a.fronts = append(a.fronts, w.fronts...)
		maps.Copy(a.purge, w.purge)
		a.shown = append(a.shown, w.shown)
		if w.jobs != nil {
			jobs[w.name] = *w.jobs
		}
		if w.budget != nil {
			a.budgets[w.name] = w.budget
		}
		a.places = append(a.places, w.places...)
		a.compare = append(a.compare, w.sweeps...)
		if m.Replication.Sweep > 0 {
			timed = append(timed, w.sweeps...)
		}
		maps.Copy(a.hooks, w.hooks)
		a.take[w.name] = w.taker
		if w.event != nil {
			a.events = append(a.events, *w.event)
		}
	}
	a.workers = replicate.NewWorkers(replicate.Options{Queue: a.queue, Mirrors: jobs, Begin: a.traces.Begin(), Logger: log})
	metrics.MustRegister(a.workers.Collectors()...)
	if len(timed) > 0 {
		s := replicate.NewSweeping(replicate.SweepingOptions{Sweeps: timed, Logger: log})
		metrics.MustRegister(s.Collectors()...)
		a.sweeps = append(a.sweeps, part{"sweep", s.Run})
	}
	a.purge[""] = a.purge[cfg.Mirrors[0].Names[0]]
	if a.works {
		reaped := replicate.NewReaperMetrics()
		metrics.MustRegister(reaped.Collectors()...)
		a.reapers = reapers(a.places, a.queue, reaped, log)
	}
	return a, nil
}

// planner compares everything that the app replicates.
func (a *app) planner() planner {
	if !a.works {
		return planner{refusal: errFront()}
	}
	return planner{queue: a.queue, sweeps: a.compare, reapers: a.reapers, settings: settlings(a.places), budgets: a.budgets}
}
