package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// BenchmarkLag pushes an image of 1 MiB three times a second, which is below the quota, between two regions that are well, and
// prints how long after a push the image is pullable at the destination: event, queue, copy and tag.
func BenchmarkLag(b *testing.B) {
	for range b.N {
		r := newRig(b, "  events: {sqs: \"$queue\"}\n")
		must(b, r.source.CreateRepository("app"))
		var lags []time.Duration
		next := time.Now()
		for i := range 100 {
			n, tag := registrytest.Image(uint64(i+1), 1<<20), fmt.Sprint("v", i)
			time.Sleep(time.Until(next))
			next = time.Now().Add(time.Second / 3)
			registrytest.Push(b, r.push, "app", tag, n)
			pushed := time.Now()
			r.eventually(tag, func() bool { return r.replicated("app", tag, n) })
			lags = append(lags, time.Since(pushed))
		}
		slices.Sort(lags)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(lags[len(lags)*p/100].Milliseconds()), fmt.Sprintf("p%d-ms", p))
		}
		b.ReportMetric(0, "ns/op")
	}
}
