package mirror

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	resolves, calls, bytes *prometheus.CounterVec
	age                    prometheus.Histogram
	missed                 prometheus.Counter
	all                    []prometheus.Collector
}

func newMetrics(mirror string) *metrics {
	labels := prometheus.Labels{"mirror": mirror}
	m := &metrics{
		resolves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_resolves_total", ConstLabels: labels,
			Help: "Tags resolved, by who answered and with what."}, []string{"tier", "result"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_upstream_calls_total", ConstLabels: labels,
			Help: "Reads asked of an upstream, by who was asked (tier), for what (call) and what came of it (result)."}, []string{"tier", "call", "result"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_upstream_bytes_total", ConstLabels: labels,
			Help: "Bytes of content read from an upstream, by pulls and by replication. Those of tier source are what crosses regions."}, []string{"tier"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ecr_mirror_tag_age_seconds", ConstLabels: labels,
			Help:    "How long ago an upstream said what a tag was answered with: 0 asked just now, above tags.ttl in an outage.",
			Buckets: []float64{0, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600}}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{Name: "ecr_mirror_missed_total", ConstLabels: labels,
			Help: "Manifests that a pull had to take from the source."}),
	}
	m.all = []prometheus.Collector{m.resolves, m.calls, m.bytes, m.age, m.missed}
	return m
}

// watch adds a gauge per upstream: 1 while it is down.
func (m *metrics) watch(mirror string, upstreams ...*Upstream) {
	for _, u := range upstreams {
		if u == nil {
			continue
		}
		m.all = append(m.all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecr_mirror_upstream_down",
			ConstLabels: prometheus.Labels{"mirror": mirror, "tier": u.name}, Help: "1 while the upstream does not answer."},
			func() float64 {
				if u.down() {
					return 1
				}
				return 0
			}))
	}
}
