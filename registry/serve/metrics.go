package serve

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec   // by mirror, endpoint, tier that answered, class of outcome
	first    *prometheus.HistogramVec // time to the headers, by endpoint and tier
	bytes    *prometheus.CounterVec   // of bodies, by mirror and tier
	shed     *prometheus.CounterVec   // requests refused for load, by the limit: total, client
	stale    *prometheus.CounterVec   // tags answered from memory during an outage, by mirror
}

func newMetrics() metrics {
	m := metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_requests_total",
			Help: "Requests by endpoint, tier that answered, and outcome (class): ok, client_left, or the class of the error. No mirror: none was found for the request."}, []string{"mirror", "endpoint", "tier", "class"}),
		first: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ecr_mirror_request_first_byte_seconds",
			Help:    "Time from a request to the headers of its answer, of those that were answered with what they asked for.",
			Buckets: []float64{.001, .005, .025, .1, .25, .5, 1, 2.5, 5, 10, 25}}, []string{"endpoint", "tier"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_served_bytes_total",
			Help: "Bytes of response bodies by the tier that answered."}, []string{"mirror", "tier"}),
		shed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_shed_total",
			Help: "Requests refused because too many are served, in total or of one client."}, []string{"limit"}),
		stale: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_stale_answers_total",
			Help: "Requests whose tag was answered from memory because no registry could be asked."}, []string{"mirror"}),
	}
	for _, limit := range []string{"total", "client"} {
		m.shed.WithLabelValues(limit)
	}
	return m
}

func (m metrics) refused(err error) {
	limit := "total"
	if errors.Is(err, errGreedy) {
		limit = "client"
	}
	m.shed.WithLabelValues(limit).Inc()
}

func (m metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.first, m.bytes, m.shed, m.stale}
}
