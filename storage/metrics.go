package storage

import "github.com/prometheus/client_golang/prometheus"

// metrics are the store's counters.
type metrics struct {
	fills      *prometheus.CounterVec // by result
	coalesced  prometheus.Counter
	evictions  prometheus.Counter
	mismatches prometheus.Counter
	uncached   prometheus.Counter
	space      []prometheus.Collector
}

func newMetrics(s *Store) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "ecr_mirror_" + name, Help: help})
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecr_mirror_" + name, Help: help}, f)
	}
	return &metrics{
		fills: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_fills_total",
			Help: "Downloads into the store that ended, by result: complete, corrupt, damaged (an interrupted fill whose bytes on disk were wrong), refused (no answer upstream), uncached (no room), interrupted, failed."},
			[]string{"result"}),
		coalesced:  counter("coalesced_readers_total", "Readers that followed a fill which another reader had started."),
		evictions:  counter("evictions_total", "Objects removed to make room."),
		mismatches: counter("digest_mismatches_total", "Upstream bodies whose bytes did not match their digest."),
		uncached:   counter("uncached_reads_total", "Reads that went past the store because it had no room."),
		space: []prometheus.Collector{
			gauge("cache_used_bytes", "Bytes booked in the store, those that running fills have reserved included.", func() float64 {
				s.mu.Lock()
				defer s.mu.Unlock()
				return float64(s.space.used)
			}),
			gauge("cache_limit_bytes", "Bytes that the store keeps at most.", func() float64 {
				s.mu.Lock()
				defer s.mu.Unlock()
				return float64(s.space.limit)
			}),
			gauge("cache_filesystem_size_bytes", "Size of the filesystem that holds the store.", func() float64 {
				total, _, _ := s.statfs(s.root) // 0: not known
				return float64(total)
			}),
			gauge("cache_filesystem_free_bytes", "Bytes of the filesystem that holds the store which are free for this process.", func() float64 {
				_, free, _ := s.statfs(s.root)
				return float64(free)
			}),
		},
	}
}

// Collectors returns the store's metrics, to be registered once.
func (s *Store) Collectors() []prometheus.Collector {
	m := s.metrics
	return append(m.space, m.fills, m.coalesced, m.evictions, m.mismatches, m.uncached)
}
