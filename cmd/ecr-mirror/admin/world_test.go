package admin

import (
	"errors"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

const (
	west      = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
	frankfurt = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
	sydney    = "444455556666.dkr.ecr.ap-southeast-2.amazonaws.com"
)

// world is what a page of a busy mirror is made from.
type world struct {
	Options
	t       *testing.T
	now     time.Time
	metrics *prometheus.Registry
	gathers int
	active  []replicate.Active
	store   storage.Report
	purged  []string
	notYet  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	q, err := replicate.OpenQueue(filepath.Join(t.TempDir(), "queue.db"))
	must(t, err)
	t.Cleanup(func() { must(t, q.Close()) })
	q.MaxAttempts = 1
	w := &world{t: t, now: time.Now(), metrics: prometheus.NewRegistry()}
	w.Options = Options{Metrics: w, Queue: q, Ready: func() []string { return w.notYet }, Version: "v1.4.0", Workers: w, Store: func() storage.Report { return w.store },
		Prices: Prices{TransferPerGB: 0.02, NATPerGB: 0.045, ZonePerGB: 0.01},
		Purge:  map[string]Purger{},
		Mirrors: []Mirror{{Name: west, Source: west, Destinations: []Destination{{"destination", frankfurt}, {sydney, sydney}}, Health: func() []mirror.Health {
			return []mirror.Health{{Name: "source", State: mirror.Up, AnsweredAt: w.now}, {Name: "destination", State: mirror.Up, AnsweredAt: w.now}}
		}}}}
	for _, name := range []string{"", west, frankfurt} {
		w.Purge[name] = func(repo, tag string) error {
			if repo == "broken" {
				return errors.New("disk")
			}
			w.purged = append(w.purged, name+" "+repo+":"+tag)
			return nil
		}
	}
	return w
}

// Gather implements prometheus.Gatherer.
func (w *world) Gather() ([]*dto.MetricFamily, error) {
	w.gathers++
	return w.metrics.Gather()
}

func (w *world) Active() []replicate.Active { return w.active }
func (w *world) Progress() replicate.Progress {
	return replicate.Progress{JobsPerSecond: 1.6, BytesPerSecond: 38 << 20, Left: 4*time.Minute + 10*time.Second}
}

func (w *world) handler() http.Handler { return New(w.Options) }

func job(destination, repo, tag string, seed string, age time.Duration, now time.Time) replicate.Job {
	return replicate.Job{Key: replicate.Key{Mirror: west, Destination: destination, Repo: repo, Tag: tag}, Lane: registry.LaneEvent, Hint: digest.FromString(seed), SeenAt: now.Add(-age)}
}

// done has the image be at a destination since so long after it was pushed.
func (w *world) done(destination, repo, tag, seed string, age, lag time.Duration) {
	w.t.Helper()
	j := job(destination, repo, tag, seed, age, w.now)
	must(w.t, w.Queue.Put(w.t.Context(), j))
	leased, err := w.Queue.Lease(w.t.Context())
	must(w.t, err)
	must(w.t, w.Queue.Done(leased, replicate.Receipt{Key: j.Key, Digest: j.Hint, SeenAt: j.SeenAt, PullableAt: j.SeenAt.Add(lag), Bytes: 180 << 20}))
}

// failed has a job be given up.
func (w *world) failed(destination, repo, tag, seed string, why error) {
	w.t.Helper()
	must(w.t, w.Queue.Put(w.t.Context(), job(destination, repo, tag, seed, 26*time.Minute, w.now)))
	leased, err := w.Queue.Lease(w.t.Context())
	must(w.t, err)
	_, err = w.Queue.Fail(leased, why)
	must(w.t, err)
}

func (w *world) counter(name string, labels prometheus.Labels, values map[string]float64, label string) {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, ConstLabels: labels}, []string{label})
	for value, n := range values {
		v.WithLabelValues(value).Add(n)
	}
	w.metrics.MustRegister(v)
}

// busy makes the world one that shows all that the page can show.
func (w *world) busy() {
	const s = time.Second
	w.done("destination", "payments/api", "v3.2.0", "p1", 50*time.Minute, 6200*time.Millisecond)
	w.done(sydney, "payments/api", "v3.2.0", "p1", 50*time.Minute, 9400*time.Millisecond)
	w.done("destination", "payments/api", "v3.2.1", "p2", 3*time.Minute, 5*s)
	w.done("destination", "platform/base", "2026.11", "b", 49*time.Hour, 31*s)
	w.done(sydney, "platform/base", "2026.11", "b", 49*time.Hour, 58*s)
	w.done("destination", "web/shop", "v17", "s1", 7*time.Hour, 4100*time.Millisecond)
	w.done(sydney, "web/shop", "v17", "s1", 7*time.Hour, 7300*time.Millisecond)
	w.done("destination", "web/shop", "v18", "s2", 21*time.Minute, 3900*time.Millisecond)
	w.failed(sydney, "web/shop", "v18", "s2", registry.Errorf(registry.Conflict, "destination: tag v18 is immutable and names sha256:%.12s", digest.FromString("other").Encoded()))
	w.failed("destination", "search/index", "v9", "i", registry.Errorf(registry.Denied, "destination: denied: User: arn:aws:sts::111122223333:assumed-role/mirror is not authorized to perform: ecr:PutImage"))
	must(w.t, w.Queue.PutLetter(w.t.Context(), west, []byte(`{"detail-type": "ECR Image Action"`), errors.New("malformed event: unexpected end of JSON input")))
	moving := job(sydney, "payments/api", "v3.2.1", "p2", 3*time.Minute, w.now)
	for _, j := range []replicate.Job{moving, job("destination", "media/transcode", "v5", "m", 40*s, w.now), job(sydney, "media/transcode", "v5", "m", 40*s, w.now),
		job("destination", "media/encode", "v2", "e", 12*s, w.now)} {
		j.Bytes = 900 << 20
		must(w.t, w.Queue.Put(w.t.Context(), j))
	}
	for range 3 {
		j, err := w.Queue.Lease(w.t.Context())
		must(w.t, err)
		w.active = append(w.active, replicate.Active{Job: j, Since: w.now.Add(-23 * s), Sent: 412 << 20, Total: 900 << 20})
	}
	w.active[1].Sent, w.active[1].Attempts = 77<<20, 1
	for i := range 14 {
		j := job("destination", "zone/tiles", "r"+string(rune('a'+i%26))+string(rune('a'+i/26)), "a", 300*time.Hour, w.now)
		j.Lane, j.Bytes, j.NextAt = registry.LaneBackfill, 64<<20, w.now.Add(time.Hour)
		must(w.t, w.Queue.Put(w.t.Context(), j))
	}
	w.store = storage.Report{Used: 31 << 30, Limit: 50 << 30, Objects: 4213, Partial: 1,
		Fills: []storage.FillReport{{Digest: digest.FromString("layer"), Size: 310 << 20, Done: 201 << 20, Readers: 14}}}
	ok := prometheus.Labels{"mirror": west, "class": "ok", "endpoint": "blob"}
	w.counter("ecr_mirror_requests_total", ok, map[string]float64{"local": 48210, "destination": 1922, "source": 640}, "tier")
	w.counter("ecr_mirror_served_bytes_total", prometheus.Labels{"mirror": west}, map[string]float64{"local": 3120 << 30, "destination": 141 << 30, "source": 52 << 30}, "tier")
	w.counter("ecr_mirror_upstream_bytes_total", prometheus.Labels{"mirror": west}, map[string]float64{"destination": 144 << 30, "source": 213 << 30}, "tier")
	w.counter("ecr_mirror_replicated_bytes_total", prometheus.Labels{"mirror": west}, map[string]float64{"destination": 201 << 30, sydney: 198 << 30}, "destination")
	lag := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ecr_mirror_replication_lag_seconds", ConstLabels: prometheus.Labels{"mirror": west}, Buckets: []float64{5, 10, 30, 60}}, []string{"destination"})
	for i := range 100 {
		lag.WithLabelValues("destination").Observe(float64(i) / 12)
		lag.WithLabelValues(sydney).Observe(float64(i) / 3)
	}
	w.metrics.MustRegister(lag)
	w.counter("ecr_mirror_evictions_total", nil, map[string]float64{"": 318}, "x")
}
