package main

import (
	"crypto/tls"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// collectors are the metrics of the process as a whole; each part has its own. All of them are in docs/metrics.md.
func (a *app) collectors() []prometheus.Collector {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "ecr_mirror_build_info", Help: "1, with the version that runs and the Go that built it."},
		[]string{"version", "goversion"})
	build.WithLabelValues(buildVersion(), runtime.Version()).Set(1)
	ready := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecr_mirror_ready", Help: "1 while /readyz says yes."}, func() float64 {
		if len(a.notReady()) > 0 {
			return 0
		}
		return 1
	})
	return []prometheus.Collector{build, ready}
}

// certificateExpiry tells when the certificate that c shows now ends: it may have been replaced since the start.
func certificateExpiry(c *tls.Config) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "ecr_mirror_tls_certificate_expiry_timestamp_seconds",
		Help: "When the certificate that the registry's listener shows ends; only with tls."}, func() float64 {
		now, err := c.GetConfigForClient(nil)
		if err != nil || now.Certificates[0].Leaf == nil {
			return 0
		}
		return float64(now.Certificates[0].Leaf.NotAfter.Unix())
	})
}
