package replicate

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// reapAttempts is how often the destination may refuse a deletion: an index may still refer to the image.
const reapAttempts = 24

// Reaper deletes at one destination what was deleted at the source. Deleting cannot be undone and events lie, so it takes all
// of this:
//
//   - an event said that the image was deleted (a Deletion), and Grace has passed since it was first heard of;
//   - the queue knows that this mirror brought the image: nobody else's copy is touched;
//   - the source, asked for this very digest, says that it is not there. Absence from a listing means nothing, for archived
//     images vanish from listings; nor does it when the whole repository is gone, or when nobody answers;
//   - somebody deleted it: unless the event says so (CloudTrail's does, EventBridge's does not), the source's repository has
//     no lifecycle policy, or Expired is set;
//   - no more than Max have been deleted in this run. The others wait, and an operator sees them waiting.
//
// What is deleted is the manifest with all tags that the destination has of it. A tag that was removed at the source while
// its image stays is not removed.
type Reaper struct{ o ReaperOptions }

// ReaperOptions configure a Reaper. Mirror, Destination, Queue, Source and Target are required.
type ReaperOptions struct {
	Mirror, Destination string // as in a Key
	Queue               *Queue
	Source              registry.Reader // itself, not through any store; if it is a registry.Keeper, its word is asked for
	Target              registry.Deleter
	Repo                func(string) string // what the destination calls a repository of the source; nil: the same
	Grace               time.Duration
	Max                 int // per run; 0: none is deleted
	// Interval is the time between two runs; 0: an hour. The first comes after it, too: a process that
	// dies and starts again and again deletes no more than one that lives.
	Interval time.Duration
	Expired  bool // what a lifecycle policy may have removed counts, too
	Metrics  *ReaperMetrics
	Logger   *slog.Logger // one line per deletion; nil: none
}

// ReaperMetrics count for all Reapers of a process.
type ReaperMetrics struct {
	ended   *prometheus.CounterVec
	waiting *prometheus.GaugeVec
}

// NewReaperMetrics returns metrics that count from zero.
func NewReaperMetrics() *ReaperMetrics {
	place := []string{"mirror", "destination"}
	return &ReaperMetrics{
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_deletions_total",
			Help: "Deletions at the source, by what became of them: deleted, not_ours, still_there, may_have_expired, no_repository, refused; failed and unsure are tried again."},
			append(place, "result")),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ecr_mirror_deletions_waiting",
			Help: "Deletions at the source that wait, as of the last run: for their grace period to end, for their turn, or for an answer."}, place),
	}
}

// Collectors returns the metrics for the caller to register, once.
func (m *ReaperMetrics) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.ended, m.waiting}
}

// NewReaper returns a Reaper that does nothing until Run or Once.
func NewReaper(o ReaperOptions) *Reaper {
	if o.Metrics == nil {
		o.Metrics = NewReaperMetrics()
	}
	o.Interval = cmp.Or(o.Interval, time.Hour)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reaper{o}
}

// Run does what is due about every Interval, until ctx ends, and then returns nil.
func (r *Reaper) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.o.Interval - r.o.Interval/20 + rand.N(r.o.Interval/10)):
		}
		if err := r.Once(ctx); err != nil && ctx.Err() == nil {
			r.o.Logger.ErrorContext(ctx, "deletions", "mirror", r.o.Mirror, "destination", r.o.Destination, "error", err)
		}
	}
}

// Once is one run. The error is the queue's, or ctx's.
func (r *Reaper) Once(ctx context.Context) error {
	ctx = registry.WithLane(ctx, registry.LaneSweep)
	due, waiting, err := r.due(ctx)
	if err != nil {
		return err
	}
	left := r.o.Max
	for i, d := range due {
		if err := ctx.Err(); err != nil {
			return err
		}
		what, cause := r.decide(ctx, d)
		if what == toDelete {
			if left == 0 {
				waiting += len(due) - i
				r.o.Logger.WarnContext(ctx, "deletions wait for the next run", "mirror", d.Mirror, "destination", d.Destination, "waiting", len(due)-i, "most", r.o.Max)
				break
			}
			left--
			d.Attempts++
			what, cause = r.delete(ctx, d)
		}
		if what == failed || what == unsure {
			waiting++
		}
		if err := r.end(ctx, d, what, cause); err != nil {
			return err
		}
	}
	r.o.Metrics.waiting.WithLabelValues(r.o.Mirror, r.o.Destination).Set(float64(waiting))
	return nil
}

// PlannedDeletion is a deletion that waits, and what would become of it today.
type PlannedDeletion struct {
	Deletion
	Due    time.Time // when its grace period ends
	Result string    // "delete", or what speaks against it, as in the metric
}

// Plan returns what waits, by key. The error is the queue's, or ctx's; a source that does not answer is a Result.
func (r *Reaper) Plan(ctx context.Context) (all []PlannedDeletion, err error) {
	ctx = registry.WithLane(ctx, registry.LaneSweep)
	for d, err := range r.o.Queue.Deletions(ctx) {
		if err != nil {
			return nil, err
		}
		if d.Mirror == r.o.Mirror && d.Destination == r.o.Destination {
			what, _ := r.decide(ctx, d)
			all = append(all, PlannedDeletion{d, d.Heard.Add(r.o.Grace), what})
		}
	}
	return all, ctx.Err()
}

// Place returns the names of the mirror and of the destination.
func (r *Reaper) Place() (mirror, destination string) { return r.o.Mirror, r.o.Destination }

// due returns the deletions whose grace period is over, the oldest first, and how many there are besides.
func (r *Reaper) due(ctx context.Context) (due []Deletion, others int, err error) {
	for d, err := range r.o.Queue.Deletions(ctx) {
		switch {
		case err != nil:
			return nil, 0, err
		case d.Mirror != r.o.Mirror || d.Destination != r.o.Destination:
		case time.Since(d.Heard) < r.o.Grace:
			others++
		default:
			due = append(due, d)
		}
	}
	slices.SortStableFunc(due, func(a, b Deletion) int { return a.Heard.Compare(b.Heard) })
	return due, others, nil
}

// What becomes of a deletion, as in the metric.
const (
	toDelete       = "delete" // nothing speaks against it; never in the metric
	deleted        = "deleted"
	notOurs        = "not_ours"
	stillThere     = "still_there"
	mayHaveExpired = "may_have_expired"
	noRepository   = "no_repository"
	refused        = "refused"
	failed         = "failed"
	unsure         = "unsure"
)

// decide returns toDelete, or what speaks against it.
func (r *Reaper) decide(ctx context.Context, d Deletion) (what string, cause error) {
	working := r.o.Queue.working(d.Key) // asked first: of a copy that ends meanwhile, one answer or the other knows
	ours, err := r.o.Queue.brought(d.Key)
	if err != nil {
		return unsure, err
	}
	switch {
	case !ours && working: // what is being copied may still arrive: it was read before it was deleted
		return unsure, errors.New("a job that may bring it is not done")
	case !ours:
		return notOurs, nil
	}
	keeps, err := r.keeps(ctx, d.Key)
	switch {
	case registry.CodeOf(err) == registry.CodeNameUnknown:
		return noRepository, err
	case err != nil:
		return unsure, err
	case keeps:
		return stillThere, nil
	}
	if keeper, ok := r.o.Source.(registry.Keeper); ok && !d.Explicit && !r.o.Expired {
		expires, err := keeper.Expires(ctx, d.Repo)
		if err != nil {
			return unsure, err
		}
		if expires {
			return mayHaveExpired, nil
		}
	}
	return toDelete, nil
}

// keeps asks the source for the digest itself.
func (r *Reaper) keeps(ctx context.Context, k Key) (bool, error) {
	if keeper, ok := r.o.Source.(registry.Keeper); ok {
		return keeper.Keeps(ctx, k.Repo, k.Digest)
	}
	_, err := r.o.Source.Stat(ctx, registry.Object{Repo: k.Repo, Kind: registry.Manifest, Digest: k.Digest})
	if registry.ClassOf(err) == registry.NotFound && registry.CodeOf(err) != registry.CodeNameUnknown {
		return false, nil
	}
	return err == nil, err
}

func (r *Reaper) delete(ctx context.Context, d Deletion) (what string, cause error) {
	repo := d.Repo
	if r.o.Repo != nil {
		repo = r.o.Repo(repo)
	}
	err := r.o.Target.DeleteManifest(ctx, repo, d.Digest)
	switch {
	case err == nil:
		return deleted, nil
	case registry.ClassOf(err) == registry.Invalid && d.Attempts >= reapAttempts:
		return refused, err
	}
	return failed, err
}

// end writes down what became of d.
func (r *Reaper) end(ctx context.Context, d Deletion, what string, cause error) (err error) {
	level := slog.LevelInfo
	switch what {
	case failed, unsure:
		level = slog.LevelWarn
		err = r.o.Queue.failDeletion(d, cause)
	case deleted:
		err = r.restore(ctx, d)
		if err == nil {
			err = r.o.Queue.endDeletion(d.Key, true)
		}
	default:
		err = r.o.Queue.endDeletion(d.Key, false)
	}
	r.o.Metrics.ended.WithLabelValues(d.Mirror, d.Destination, what).Inc()
	attrs := []slog.Attr{slog.String("mirror", d.Mirror), slog.String("destination", d.Destination), slog.String("repo", d.Repo),
		slog.String("digest", d.Digest.String()), slog.Time("at", d.At), slog.String("result", what)}
	if cause != nil {
		attrs = append(attrs, slog.Any("error", cause))
	}
	r.o.Logger.LogAttrs(ctx, level, "deletion", attrs...)
	return err
}

// restore asks the source once more. What was pushed again while it was deleted is copied again; its tags are found by the
// next sweep, unless their own event comes later anyway.
func (r *Reaper) restore(ctx context.Context, d Deletion) error {
	if keeps, err := r.keeps(ctx, d.Key); err != nil || !keeps {
		return nil // an event or a sweep will tell
	}
	return r.o.Queue.Put(ctx, Job{Key: d.Key, Lane: registry.LaneEvent})
}
