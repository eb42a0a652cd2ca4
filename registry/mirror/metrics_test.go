package mirror_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Every read of an upstream counts by what came of it, every byte that came, and every answer about a tag by its age.
func TestMetricsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := mem.New()
		image := registrytest.Image(1, 10)
		registrytest.Push(t, src, repo, "v1", image)
		source := mirror.NewUpstream("source", src)
		m := mirror.New(mirror.Options{Name: "m", Objects: source, Source: source, TTL: time.Minute})
		resolve(t, m, repo, "v1") // asked just now
		time.Sleep(10 * time.Second)
		resolve(t, m, repo, "v1") // known for ten seconds
		time.Sleep(time.Minute)
		resolve(t, m, repo, "v1") // asked again
		for range 2 {
			if _, err := open(t, m, manifest(image)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := open(t, m, manifest(registrytest.Image(2, 10))); registry.ClassOf(err) != registry.NotFound {
			t.Fatal(err)
		}
		reg := prometheus.NewPedanticRegistry()
		reg.MustRegister(m.Collectors()...)
		want := fmt.Sprintf(`# HELP ecr_mirror_tag_age_seconds How long ago an upstream said what a tag was answered with: 0 asked just now, above tags.ttl in an outage.
# TYPE ecr_mirror_tag_age_seconds histogram
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="0"} 2
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="5"} 2
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="15"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="60"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="300"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="900"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="3600"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="14400"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="43200"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="86400"} 3
ecr_mirror_tag_age_seconds_bucket{mirror="m",le="+Inf"} 3
ecr_mirror_tag_age_seconds_sum{mirror="m"} 10
ecr_mirror_tag_age_seconds_count{mirror="m"} 3
# HELP ecr_mirror_upstream_bytes_total Bytes of content read from an upstream, by pulls and by replication. Those of tier source are what crosses regions.
# TYPE ecr_mirror_upstream_bytes_total counter
ecr_mirror_upstream_bytes_total{mirror="m",tier="source"} %d
# HELP ecr_mirror_upstream_calls_total Reads asked of an upstream, by who was asked (tier), for what (call) and what came of it (result).
# TYPE ecr_mirror_upstream_calls_total counter
ecr_mirror_upstream_calls_total{call="open",mirror="m",result="not_found",tier="source"} 1
ecr_mirror_upstream_calls_total{call="open",mirror="m",result="ok",tier="source"} 2
ecr_mirror_upstream_calls_total{call="resolve",mirror="m",result="ok",tier="source"} 2
`, 2*len(image.Body))
		if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "ecr_mirror_tag_age_seconds", "ecr_mirror_upstream_bytes_total", "ecr_mirror_upstream_calls_total"); err != nil {
			t.Error(err)
		}
	})
}
