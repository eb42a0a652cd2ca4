package replicate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Mirror is where a mirror's jobs read and write.
type Mirror struct {
	Source       registry.Reader // content: the local store over the source
	Tags         registry.Reader // the source itself, for what a tag names now; nil: Source
	Lister       registry.Lister // the source, for what is about an image; nil: that is not copied along
	Destinations map[string]Destination
	Budget       *Budget // of what Source and Tags read; nil: none
	// HandOver has others do the mirror's jobs, who may write to destinations where this process may not: it returns nil when
	// they have a job, durably. The rest is then not needed. nil: the jobs are done here.
	HandOver func(context.Context, Job) error
}

// errHanded is the end of a job that is others' now.
var errHanded = errors.New("handed over")

// Options configure Workers. Only Queue is required.
type Options struct {
	Queue       *Queue
	Mirrors     map[string]Mirror
	Concurrency int           // jobs at a time: 4; one more if clients or events asked for it
	Uploads     int           // uploads at a time for one job: 3
	NoProgress  time.Duration // a job in which nothing moves for this long fails: 10m; waiting for a quota counts as not moving
	Logger      *slog.Logger  // one line per attempt; nil: none
	// Begin is told of each attempt when it begins, and what it returns of its end: result is as in the metrics, or released or
	// postponed. The attempt has the context that it returns. nil: nobody is told.
	Begin func(ctx context.Context, j Job) (_ context.Context, end func(result string, err error))
	Now   func() time.Time // for durations in the log and ages in metrics; nil: time.Now
}

// Workers do the queue's jobs.
type Workers struct {
	o       Options
	copier  *Copier
	metrics *metrics
	speed   speed
	active  active
}

// NewWorkers returns Workers that do nothing until Run.
func NewWorkers(o Options) *Workers {
	o.Concurrency = cmp.Or(o.Concurrency, 4)
	o.NoProgress = cmp.Or(o.NoProgress, 10*time.Minute)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	w := &Workers{o: o, copier: &Copier{Parallel: o.Uploads}}
	w.metrics = newMetrics(o.Queue, w.Progress, o.Now)
	return w
}

// Collectors returns the metrics for the caller to register, once.
func (w *Workers) Collectors() []prometheus.Collector { return w.metrics.collectors() }

// Run does jobs until ctx ends, and then returns nil: what is in flight is cut and pending again. An error means that the
// queue was closed under it.
func (w *Workers) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range w.o.Concurrency {
		g.Go(func() error { return w.run(ctx, lanes-1) })
	}
	g.Go(func() error { return w.run(ctx, registry.LaneEvent) }) // the others may all be at a backfill's large images
	return g.Wait()
}

// run does jobs of lanes up to highest.
func (w *Workers) run(ctx context.Context, highest registry.Lane) error {
	for {
		j, err := w.o.Queue.lease(ctx, highest)
		if ctx.Err() != nil {
			if err == nil {
				w.o.Queue.Release(j)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("lease: %w", err)
		}
		if until, spent := w.o.Mirrors[j.Mirror].Budget.Spent(j.Lane); spent {
			w.o.Queue.Postpone(j, until.Sub(w.o.Now()))
			continue
		}
		if w.o.Begin == nil {
			w.work(ctx, j)
			continue
		}
		attempt, end := w.o.Begin(ctx, j)
		end(w.work(attempt, j))
	}
}

// attempt copies what j asks for.
func (w *Workers) attempt(ctx context.Context, j Job) (Result, error) {
	m, ok := w.o.Mirrors[j.Mirror]
	if !ok {
		return Result{}, registry.Errorf(registry.Invalid, "mirror %q is not in the configuration", j.Mirror)
	}
	if m.HandOver != nil {
		if err := m.HandOver(ctx, j); err != nil {
			return Result{}, fmt.Errorf("hand over: %w", err)
		}
		return Result{}, errHanded
	}
	d, ok := m.Destinations[j.Destination]
	if !ok {
		return Result{}, registry.Errorf(registry.Invalid, "mirror %q has no destination %q in the configuration", j.Mirror, j.Destination)
	}
	if d.Wants != nil && !d.Wants(j.Repo, j.Tag) {
		return Result{}, fmt.Errorf("by the rules: %w", ErrUnwanted)
	}
	ctx, alive, stop := watch(registry.WithLane(ctx, j.Lane), w.o.NoProgress)
	defer stop()
	doing := w.active.begin(j, w.o.Now())
	defer w.active.end(j.Key)
	sent := w.metrics.bytes.WithLabelValues(j.Mirror, j.Destination)
	d.Name = j.Mirror + "/" + j.Destination
	im := Image{Source: m.Source, Tags: m.Tags, Lister: m.Lister, Destination: d, Repo: j.Repo, Follow: j.Follow,
		Progress: func(n int64) {
			alive()
			if n > 0 {
				sent.Add(float64(n))
				doing.sent.Add(n)
				w.speed.sent(w.o.Now(), n)
			}
		},
		Planned: func(n int64) { doing.total.Add(n) },
		Settled: func(d digest.Digest) bool {
			k := j.Key
			k.Tag, k.Digest = "", d
			r, ok, err := w.o.Queue.Receipt(k)
			return ok && err == nil && !r.Found
		}}
	if d.Remembers {
		im.Bringing = func(ctx context.Context, d digest.Digest) error {
			k := j.Key
			k.Tag, k.Digest = "", d
			return w.o.Queue.bringing(ctx, k)
		}
	}
	if im.Tags == nil {
		im.Tags = m.Source
	}
	if d.Platforms != nil && j.Tag != "" {
		im.Platforms = d.Platforms(j.Repo, j.Tag)
	}
	copy := func() (Result, error) {
		if j.Tag != "" {
			return w.copier.Tag(ctx, im, j.Tag)
		}
		return w.copier.Content(ctx, im, j.Digest)
	}
	res, err := copy()
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return res, err
}
