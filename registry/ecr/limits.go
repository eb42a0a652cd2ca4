package ecr

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Limits holds one token bucket per call, account and region, as ECR's quotas do. All Registries of a process share one, so
// that two mirrors with the same destination do not spend its quota twice. Safe for concurrent use.
type Limits struct {
	mu      sync.Mutex
	buckets map[[3]string]*bucket

	calls *prometheus.CounterVec
	times *prometheus.HistogramVec
}

// NewLimits returns Limits without any bucket: a Registry adds its own, with its own rates, on their first use.
func NewLimits() *Limits {
	return &Limits{
		buckets: make(map[[3]string]*bucket),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_ecr_calls_total",
			Help: "Calls to ECR's control API by registry, call and class of their error (ok, throttled, denied, ...).",
		}, []string{"registry", "call", "class"}),
		times: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ecr_mirror_ecr_call_seconds", Help: "Duration of calls to ECR's control API, without the wait for a turn.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 9),
		}, []string{"call"}),
	}
}

// Collectors returns the metrics of all calls made under these Limits. The caller registers them.
func (l *Limits) Collectors() []prometheus.Collector { return []prometheus.Collector{l.calls, l.times} }

// bucket returns the bucket of a call. rate (calls per second, 0: the careful default) counts only the first time.
func (l *Limits) bucket(account, region, api string, rate float64) *bucket {
	if rate <= 0 {
		rate = otherRate
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := [3]string{account, region, api}
	b := l.buckets[k]
	if b == nil {
		b = newBucket(rate)
		l.buckets[k] = b
	}
	return b
}

func (l *Limits) observe(host, api string, err error, d time.Duration) {
	class := "ok"
	if err != nil {
		class = registry.ClassOf(err).String()
	}
	l.calls.WithLabelValues(host, api, class).Inc()
	l.times.WithLabelValues(api).Observe(d.Seconds())
}
