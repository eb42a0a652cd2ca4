package mirror

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

type metrics struct {
	resolves, upstream *prometheus.CounterVec
	stale              prometheus.Histogram
	missed             prometheus.Counter
	all                []prometheus.Collector
}

func newMetrics(mirror string) *metrics {
	labels := prometheus.Labels{"mirror": mirror}
	m := &metrics{
		resolves: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_resolves_total", ConstLabels: labels,
			Help: "Tags resolved, by who answered and with what."}, []string{"tier", "result"}),
		upstream: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_upstream_resolves_total", ConstLabels: labels,
			Help: "Tags asked for upstream, by who was asked and what it said."}, []string{"tier", "result"}),
		stale: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ecr_mirror_stale_answer_age_seconds", ConstLabels: labels,
			Help: "Age of tags answered from memory because nobody could be asked.", Buckets: []float64{60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600}}),
		missed: prometheus.NewCounter(prometheus.CounterOpts{Name: "ecr_mirror_missed_total", ConstLabels: labels,
			Help: "Manifests that a pull had to take from the source."}),
	}
	m.all = []prometheus.Collector{m.resolves, m.upstream, m.stale, m.missed}
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

func result(err error) string {
	if err == nil {
		return "ok"
	}
	return registry.ClassOf(err).String()
}
