package storage

import "github.com/prometheus/client_golang/prometheus"

// metrics are the store's counters.
type metrics struct {
	fills      *prometheus.CounterVec // by result
	coalesced  prometheus.Counter
	upstream   prometheus.Counter
	evictions  prometheus.Counter
	mismatches prometheus.Counter
	uncached   prometheus.Counter
	used       prometheus.GaugeFunc
}

func newMetrics(s *Store) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "ecr_mirror_" + name, Help: help})
	}
	return &metrics{
		fills: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_fills_total",
			Help: "Downloads into the store that ended, by result: complete, corrupt, damaged (an interrupted fill whose bytes on disk were wrong), refused (no answer upstream), uncached (no room), interrupted, failed."},
			[]string{"result"}),
		coalesced:  counter("coalesced_readers_total", "Readers that followed a fill which another reader had started."),
		upstream:   counter("upstream_bytes_total", "Bytes read from upstream into the store or through it."),
		evictions:  counter("evictions_total", "Objects removed to make room."),
		mismatches: counter("digest_mismatches_total", "Upstream bodies whose bytes did not match their digest."),
		uncached:   counter("uncached_reads_total", "Reads that went past the store because it had no room."),
		used: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecr_mirror_cache_used_bytes",
			Help: "Bytes booked in the store, those that running fills have reserved included."}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(s.space.used)
		}),
	}
}

// Collectors returns the store's metrics, to be registered once.
func (s *Store) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.fills, m.coalesced, m.upstream, m.evictions, m.mismatches, m.uncached, m.used}
}
