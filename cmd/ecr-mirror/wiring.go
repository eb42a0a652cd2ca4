package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// wiring connects the parts of one mirror. Its name is the namespace of its links and tags in the store and of its jobs: the
// first of its names, which no other mirror has.
type wiring struct {
	name    string
	store   *storage.Store
	queue   *replicate.Queue
	up      upstreams
	metrics *prometheus.Registry
	log     *slog.Logger

	fronts []front
	purge  map[string]admin.Purger // by the mirror's names
	jobs   *replicate.Mirror       // nil: there is no destination
	event  *part                   // nil: no queue of events
	hooks  map[string]http.Handler // by path
	taker  events.Handle           // of the source's changes
	sweeps []*replicate.Sweep
	places []place           // what is replicated to
	budget *replicate.Budget // nil: none
	shown  admin.Mirror      // on the admin page
}

func (w *wiring) connect(ctx context.Context, cfg *config.Config, c *config.Mirror) error {
	src, err := w.up.open(ctx, c.Source)
	if err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if n := int64(c.Replication.BytesPerDay); n > 0 {
		if w.budget, err = replicate.NewBudget(replicate.BudgetOptions{Mirror: w.name, Bytes: n, Queue: w.queue, Logger: w.log}); err != nil {
			return err
		}
		w.metrics.MustRegister(w.budget.Collectors()...)
	}
	source := mirror.NewUpstream("source", w.budget.Reader(src))
	tiers := []registry.Reader{source}
	if w.places, err = placesOf(ctx, c, chainOf(cfg), src, w.up); err != nil {
		return err
	}
	o := mirror.Options{
		Name: w.name, Source: source, SourceLister: src, Tags: w.store.Tags(w.name),
		TTL: c.Tags.TTL, StaleFor: c.Tags.StaleFor, Logger: w.log,
		Local: func(obj registry.Object) bool { return w.store.Has(w.name, obj) },
	}
	if c.Destination != nil {
		own := w.places[0]
		destination := mirror.NewUpstream("destination", registry.Rename(own.destination, own.rules.There))
		tiers = []registry.Reader{destination, source}
		o.Destination, o.DestinationLister = destination, registry.RenameLister(own.destination, own.rules.There)
		if c.Tags.Authority == "destination" {
			o.Authority = mirror.AuthorityDestination
		}
		if c.Replication.OnMiss {
			o.Missed = w.missed
		}
	}
	o.Objects = w.store.Over(w.name, registry.Tiers(tiers...))
	m := mirror.New(o)
	w.metrics.MustRegister(m.Collectors()...)
	w.serve(cfg, c, m)
	w.shown = shown(c, w.places, m)
	if !cfg.Works() {
		return w.handOver(ctx, c)
	}
	var content registry.Reader = source
	if f := c.Replication.Fronts; f != nil {
		lb, err := w.up.open(ctx, *f)
		if err != nil {
			return fmt.Errorf("fronts: %w", err)
		}
		content = throughFronts{source, registry.Tiers(registry.Named("fronts", lb), source)}
	}
	w.replicate(c, source, content)
	return w.listenTo(ctx, m, c)
}

// replicate connects what writes to the destinations. The copier reads over the store that pulls read over: what a pull
// brought, or is bringing, does not cross regions again, nor does what goes to a second destination.
// source says what tags name; content is read from there.
func (w *wiring) replicate(c *config.Mirror, source, content registry.Reader) {
	if len(w.places) == 0 {
		return
	}
	w.jobs = &replicate.Mirror{Source: w.store.Over(w.name, content), Tags: source, Lister: w.places[0].source, Budget: w.budget,
		Destinations: make(map[string]replicate.Destination)}
	for _, p := range w.places {
		w.jobs.Destinations[p.name] = replicate.Destination{Writer: p.settings.creating(p.destination), Reader: p.destination, Repo: p.rules.There,
			Wants:     func(repo, tag string) bool { return p.rules.Follows(repo, tag) || p.rules.Match(repo, tag) },
			Platforms: p.rules.Platforms, Trail: p.trail(w.queue), Remembers: p.deletes != nil}
		sweep := p.sweep(w.queue)
		sweep.Interval = c.Replication.Sweep
		w.sweeps = append(w.sweeps, sweep)
	}
}

// throughFronts takes blobs, which are large and asked for by clients at the same time, through the fronts. Manifests are small, and a
// front would report one that only the source has as missed.
type throughFronts struct {
	registry.Reader // the source
	blobs           registry.Reader
}

func (t throughFronts) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	if o.Kind == registry.Blob {
		return t.blobs.Open(ctx, o, r)
	}
	return t.Reader.Open(ctx, o, r)
}

// missed writes the jobs down before the manifest is served: no later pull may report it again. Of those that are handed over one is
// enough: who takes it asks the rules for every destination.
func (w *wiring) missed(m mirror.Miss) error {
	var jobs []replicate.Job
	for _, p := range w.places {
		if len(jobs) > 0 && w.jobs.HandOver != nil {
			break
		}
		if j, ok := replicate.FromMiss(w.name, p.name, m.Repo, m.Tag, m.Descriptor.Digest, time.Now()); ok && p.wants(&j) {
			jobs = append(jobs, j)
		}
	}
	err := w.queue.Put(context.Background(), jobs...)
	if err != nil {
		w.log.Error("a missed image is not replicated yet", "mirror", w.name, "repository", m.Repo, "tag", m.Tag, "error", err)
	}
	return err
}
