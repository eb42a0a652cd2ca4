package replicate_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// BenchmarkQueue writes down 100,000 jobs of a thousand images and does a fifth of them between registries in memory, so that
// what is measured is the queue and its file: jobs/s, the lag from being put to being pullable, and memory. Meanwhile an event
// comes every 20 ms: its lag is what a push waits behind a backfill of that size.
func BenchmarkQueue(b *testing.B) {
	const jobs, done, images, batch = 100_000, 20_000, 1000, 1000
	for range b.N {
		q := newQueue(b)
		src, dst := mem.New(), mem.New()
		for i := range images {
			registrytest.Push(b, src, "app", fmt.Sprintf("image-%d", i), registrytest.Image(uint64(i), 100))
			body, d := manifest(b, src, fmt.Sprintf("image-%d", i))
			for j := range jobs / images {
				must(b, src.PutManifest(b.Context(), "app", fmt.Sprintf("v%d-%d", i, j), d, body))
			}
		}
		before := heap()
		began := time.Now()
		for i := 0; i < jobs; i += batch {
			var some []replicate.Job
			for n := i; n < i+batch; n++ {
				j := tagJob("app", fmt.Sprintf("v%d-%d", n%images, n/images), "", time.Now())
				j.Lane = registry.LaneBackfill
				some = append(some, j)
			}
			must(b, q.Put(b.Context(), some...))
		}
		b.ReportMetric(jobs/time.Since(began).Seconds(), "put/s")
		b.ReportMetric(float64(heap()-before)/jobs, "B/job")

		w := replicate.NewWorkers(replicate.Options{Queue: q, Mirrors: map[string]replicate.Mirror{"m": {Source: src,
			Destinations: map[string]replicate.Destination{"d": {Writer: dst, Reader: dst}}}}})
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		began = time.Now()
		go func() { ended <- w.Run(ctx) }()
		events := make(map[replicate.Key]bool)
		body, d := manifest(b, src, "image-0")
		for i := 0; i%10 > 0 || q.Pending().Waiting() > jobs-done; i++ {
			tag := fmt.Sprintf("event-%d", i)
			must(b, src.PutManifest(b.Context(), "app", tag, d, body))
			j := tagJob("app", tag, "", time.Now())
			put(b, q, j)
			events[j.Key] = true
			time.Sleep(20 * time.Millisecond)
		}
		took := time.Since(began)
		stop()
		must(b, <-ended)
		b.ReportMetric(float64(done+len(events))/took.Seconds(), "jobs/s")
		report(b, q, "backfill", func(k replicate.Key) bool { return !events[k] })
		report(b, q, "event", func(k replicate.Key) bool { return events[k] })
	}
}

// report prints the lags of the tags that of picks.
func report(b *testing.B, q *replicate.Queue, name string, of func(replicate.Key) bool) {
	b.Helper()
	var lags []time.Duration
	for r, err := range q.Receipts(b.Context()) {
		must(b, err)
		if r.Key.Tag != "" && of(r.Key) {
			lags = append(lags, r.PullableAt.Sub(r.SeenAt))
		}
	}
	slices.Sort(lags)
	for _, p := range []int{50, 99} {
		if len(lags) > 0 {
			b.ReportMetric(float64(lags[len(lags)*p/100].Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", name, p))
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func manifest(b *testing.B, r *mem.Registry, tag string) ([]byte, registry.Descriptor) {
	b.Helper()
	d, err := r.Resolve(b.Context(), "app", tag)
	must(b, err)
	c, err := r.Open(b.Context(), registry.Object{Repo: "app", Kind: registry.Manifest, Digest: d.Digest}, registry.Whole)
	must(b, err)
	body := make([]byte, d.Size)
	_, err = c.Read(body)
	must(b, err)
	must(b, c.Close())
	return body, d
}
