package replicate

import (
	"context"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	// overlap is how far a sweep looks back before the start of the last: clocks differ, and a listing lags behind a push.
	overlap = 10 * time.Minute
	// turns is how many sweeps it takes to look at all images of all repositories; each takes its share.
	turns = 24
	// putBatch bounds how many jobs one transaction writes.
	putBatch = 1000
)

// Sweeping runs sweeps time and again and puts what they find into their queues.
type Sweeping struct {
	o      SweepingOptions
	found  *prometheus.CounterVec
	failed *prometheus.CounterVec
	last   *prometheus.GaugeVec
	every  *prometheus.GaugeVec
}

// SweepingOptions configure Sweeping. Only Sweeps is required.
type SweepingOptions struct {
	Sweeps []*Sweep         // each with its Interval
	Logger *slog.Logger     // one line per sweep; nil: none
	Now    func() time.Time // nil: time.Now
}

// NewSweeping returns Sweeping that does nothing until Run.
func NewSweeping(o SweepingOptions) *Sweeping {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	place := []string{"mirror", "destination"}
	s := &Sweeping{o,
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_sweep_differences_total",
			Help: "Differences between source and destination that sweeps found, by what is made of them, and whether they are of the last day (lane sweep) or older (backfill)."}, append(place, "action", "lane")),
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_sweep_failures_total",
			Help: "Sweeps that failed, and repositories that a sweep could not compare."}, place),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ecr_mirror_sweep_last_success_timestamp_seconds",
			Help: "When the last sweep without a failure started; absent before the first."}, place),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ecr_mirror_sweep_interval_seconds",
			Help: "Time between the starts of two sweeps."}, place)}
	for _, sw := range o.Sweeps { // a first difference is an increase only of what was there before
		s.failed.WithLabelValues(sw.Mirror, sw.Destination)
		s.every.WithLabelValues(sw.Mirror, sw.Destination).Set(sw.Interval.Seconds())
		for a := range actions {
			for lane := registry.LaneSweep; lane <= registry.LaneBackfill; lane++ {
				s.found.WithLabelValues(sw.Mirror, sw.Destination, Action(a).label(), lane.String())
			}
		}
	}
	return s
}

// Collectors returns the metrics for the caller to register, once.
func (s *Sweeping) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.found, s.failed, s.last, s.every}
}

// Run sweeps until ctx ends, and then returns nil. The first sweep starts within a tenth of the interval and compares
// everything. Each later one compares what was pushed since the last, and whole the repositories that failed the last time
// and another share of all: after 24 sweeps each had its turn, for a tag that was moved to an older image shows no new push. A sweep that fails
// is in the log and the metrics, and the next makes up for it.
func (s *Sweeping) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, sw := range s.o.Sweeps {
		g.Go(func() error { s.each(ctx, sw); return nil })
	}
	return g.Wait()
}

func (s *Sweeping) each(ctx context.Context, sw *Sweep) {
	var since time.Time
	var again map[string]error // repositories that could not be compared the last time
	wait := rand.N(sw.Interval/10 + 1)
	for turn := uint32(0); ; turn++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		start := s.o.Now()
		p := s.once(ctx, sw, since, func(repo string) bool { return share(repo) == turn%turns || again[repo] != nil })
		if p != nil {
			since, again = start.Add(-overlap), p.Problems
		}
		wait = sw.Interval - sw.Interval/10 + rand.N(sw.Interval/5+1) - s.o.Now().Sub(start)
	}
}

// share is the turn in which a repository is compared whole.
func share(repo string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(repo))
	return h.Sum32() % turns
}

// once sweeps and writes down what is to be done. nil: it failed as a whole.
func (s *Sweeping) once(ctx context.Context, sw *Sweep, since time.Time, full func(string) bool) *Plan {
	start := s.o.Now()
	failures := s.failed.WithLabelValues(sw.Mirror, sw.Destination)
	log := s.o.Logger.With("mirror", sw.Mirror, "destination", sw.Destination)
	p, err := sw.Plan(registry.WithLane(ctx, registry.LaneSweep), since, full)
	var jobs []Job
	if err == nil {
		jobs = p.Jobs(s.o.Now())
		err = sw.Queue.PutAll(ctx, jobs)
	}
	if err != nil {
		if ctx.Err() == nil {
			failures.Inc()
			log.Error("sweep", "since", since, "error", err)
		}
		return nil
	}
	for _, problem := range p.Problems {
		failures.Inc()
		log.Warn("sweep", "error", problem)
	}
	conflicts, _ := p.Count(KeepTag)
	expired, _ := p.Count(Expired)
	for _, d := range p.Differences {
		s.found.WithLabelValues(sw.Mirror, sw.Destination, d.Action.label(), d.lane(start).String()).Inc()
	}
	log.Info("sweep", "since", since, "images", p.Images, "jobs", len(jobs), "conflicts", conflicts, "expired", expired,
		"problems", len(p.Problems), "duration", s.o.Now().Sub(start))
	if len(p.Problems) == 0 {
		s.last.WithLabelValues(sw.Mirror, sw.Destination).Set(float64(start.Unix()))
	}
	return p
}

// PutAll is Put for any number of jobs: what was written when it fails stays, for to put it again does no harm.
func (q *Queue) PutAll(ctx context.Context, jobs []Job) error {
	for len(jobs) > 0 {
		n := min(len(jobs), putBatch)
		if err := q.Put(ctx, jobs[:n]...); err != nil {
			return err
		}
		jobs = jobs[n:]
	}
	return nil
}
