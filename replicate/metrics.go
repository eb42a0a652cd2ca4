package replicate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// metrics are the workers' own; mirrors and destinations are configured, so labels are few.
type metrics struct {
	results *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	lag     *prometheus.HistogramVec
	queue   *queueMetrics
}

func newMetrics(q *Queue, progress func() Progress, now func() time.Time) *metrics {
	place := []string{"mirror", "destination"}
	return &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_job_results_total",
			Help: "Attempts at replication jobs by result: done, found, partial, superseded, gone, unwanted, echo, handed_over, or the class of the error."},
			append(place, "result")),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_replicated_bytes_total",
			Help: "Bytes of blobs sent to destinations, repetitions included."}, place),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ecr_mirror_replication_lag_seconds",
			Help:    "Time from the push at the source (or the miss) to pullable at the destination.",
			Buckets: []float64{.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600}}, place),
		queue: &queueMetrics{q, progress, now,
			prometheus.NewDesc("ecr_mirror_queue_jobs", "Replication jobs that wait, by lane; leased ones included.", []string{"lane"}, nil),
			prometheus.NewDesc("ecr_mirror_queue_oldest_seconds", "Age of the oldest waiting job, by lane.", []string{"lane"}, nil),
			prometheus.NewDesc("ecr_mirror_queue_given_up_jobs", "Jobs that wait for an operator, by state.", []string{"state"}, nil),
			prometheus.NewDesc("ecr_mirror_dead_letters", "Messages that could not become jobs and are kept for an operator.", nil, nil),
			prometheus.NewDesc("ecr_mirror_dead_letters_dropped_total", "Dead letters that gave way to newer ones.", nil, nil),
			prometheus.NewDesc("ecr_mirror_queue_bytes", "What waiting jobs will send, as far as sweeps know.", nil, nil),
			prometheus.NewDesc("ecr_mirror_queue_left_seconds", "Time that the waiting jobs take at the speed of the last minutes; absent while that is not known.", nil, nil)},
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.results, m.bytes, m.lag, m.queue}
}

// queueMetrics reads the queue when it is scraped.
type queueMetrics struct {
	q                   *Queue
	progress            func() Progress
	now                 func() time.Time
	jobs, oldest, given *prometheus.Desc
	letters, dropped    *prometheus.Desc
	bytes, left         *prometheus.Desc
}

func (m *queueMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.jobs
	out <- m.oldest
	out <- m.given
	out <- m.letters
	out <- m.dropped
	out <- m.bytes
	out <- m.left
}

func (m *queueMetrics) Collect(out chan<- prometheus.Metric) {
	c, now := m.q.Pending(), m.now()
	gauge := func(d *prometheus.Desc, v float64, label string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, label)
	}
	for l, d := range c.Pending {
		age := 0.0
		if d.Jobs > 0 {
			age = max(0, now.Sub(d.Oldest).Seconds())
		}
		gauge(m.jobs, float64(d.Jobs), registry.Lane(l).String())
		gauge(m.oldest, age, registry.Lane(l).String())
	}
	gauge(m.given, float64(c.Dead), Dead.String())
	gauge(m.given, float64(c.Conflict), Conflict.String())
	p := m.progress()
	out <- prometheus.MustNewConstMetric(m.bytes, prometheus.GaugeValue, float64(p.Bytes))
	if p.Left >= 0 {
		out <- prometheus.MustNewConstMetric(m.left, prometheus.GaugeValue, p.Left.Seconds())
	}
	if l, err := m.q.LetterCounts(); err == nil { // else the queue is closed: the process ends
		out <- prometheus.MustNewConstMetric(m.letters, prometheus.GaugeValue, float64(l.Kept))
		out <- prometheus.MustNewConstMetric(m.dropped, prometheus.CounterValue, float64(l.Dropped))
	}
}
