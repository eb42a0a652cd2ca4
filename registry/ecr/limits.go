package ecr

import (
	"cmp"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Limits holds one token bucket per call, account and region, as ECR's quotas do. All Registries of a process share one, so
// that two mirrors with the same destination do not spend its quota twice. Safe for concurrent use.
type Limits struct {
	mu      sync.Mutex
	rates   map[[3]string]float64 // that were asked for
	buckets map[[3]string]*bucket

	calls   *prometheus.CounterVec
	fetched *prometheus.CounterVec
	times   *prometheus.HistogramVec
	allowed *prometheus.Desc
}

// NewLimits returns Limits without any bucket: each appears with the first use of its call.
func NewLimits() *Limits {
	return &Limits{
		rates:   make(map[[3]string]float64),
		buckets: make(map[[3]string]*bucket),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_ecr_calls_total",
			Help: "Calls to ECR's control API by registry, call and class of their error (ok, throttled, denied, ...).",
		}, []string{"registry", "call", "class"}),
		fetched: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_credential_fetches_total",
			Help: "AWS credentials that were taken up, at the start and when they were renewed, by registry and result: ok, or the class of the error.",
		}, []string{"registry", "result"}),
		times: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ecr_mirror_ecr_call_seconds", Help: "Duration of calls to ECR's control API, without the wait for a turn.",
			Buckets: prometheus.ExponentialBuckets(0.01, 3, 9),
		}, []string{"call"}),
		allowed: prometheus.NewDesc("ecr_mirror_ecr_rate", "Calls per second that this process allows itself now: less than configured after throttling.",
			[]string{"account", "region", "call"}, nil),
	}
}

// Collectors returns the metrics of all calls made under these Limits. The caller registers them.
func (l *Limits) Collectors() []prometheus.Collector {
	return []prometheus.Collector{l.calls, l.fetched, l.times, allowed{l}}
}

// allowed collects the rates of the buckets that there are.
type allowed struct{ *Limits }

func (a allowed) Describe(out chan<- *prometheus.Desc) { out <- a.allowed }

func (a allowed) Collect(out chan<- prometheus.Metric) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, b := range a.buckets {
		out <- prometheus.MustNewConstMetric(a.allowed, prometheus.GaugeValue, float64(b.tokens.Limit()), k[0], k[1], k[2])
	}
}

// ask sets the rate of a call, before its first use. Of several the smallest counts.
func (l *Limits) ask(account, region, api string, perSecond float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := [3]string{account, region, api}
	if old, ok := l.rates[k]; perSecond > 0 && (!ok || perSecond < old) {
		l.rates[k] = perSecond
	}
}

// bucket returns the bucket of a call: at the rate that was asked for, else half of ECR's default quota.
func (l *Limits) bucket(account, region, api string) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := [3]string{account, region, api}
	b := l.buckets[k]
	if b == nil {
		b = newBucket(cmp.Or(l.rates[k], DefaultRate(api)))
		l.buckets[k] = b
	}
	return b
}

func (l *Limits) observe(host, api string, err error, d time.Duration) {
	l.calls.WithLabelValues(host, api, registry.Result(err)).Inc()
	l.times.WithLabelValues(api).Observe(d.Seconds())
}
