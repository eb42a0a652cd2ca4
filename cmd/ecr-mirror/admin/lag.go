package admin

import (
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
)

// Lag is how long images took from the push to pullable at a destination, as exactly as the buckets of the metric are.
type Lag struct {
	Mirror      string  `json:"mirror"`
	Destination string  `json:"destination"` // its name in the keys of jobs
	Images      uint64  `json:"images"`
	HalfWithin  float64 `json:"halfWithinSeconds"` // the smallest bucket's end that holds half; -1: longer than any
	MostWithin  float64 `json:"mostWithinSeconds"` // and 95 %
}

func lagsOf(f *dto.MetricFamily) (all []Lag) {
	for _, m := range f.GetMetric() {
		h := m.GetHistogram()
		if h.GetSampleCount() == 0 {
			continue
		}
		l := Lag{Images: h.GetSampleCount(), HalfWithin: within(h, 0.5), MostWithin: within(h, 0.95)}
		for _, p := range m.GetLabel() {
			switch p.GetName() {
			case "mirror":
				l.Mirror = p.GetValue()
			case "destination":
				l.Destination = p.GetValue()
			}
		}
		all = append(all, l)
	}
	return all
}

// within returns the end of the first bucket up to which there is such a part of all.
func within(h *dto.Histogram, part float64) float64 {
	want := uint64(math.Ceil(part * float64(h.GetSampleCount())))
	i := slices.IndexFunc(h.GetBucket(), func(b *dto.Bucket) bool { return b.GetCumulativeCount() >= want && !math.IsInf(b.GetUpperBound(), 1) })
	if i < 0 {
		return -1
	}
	return h.GetBucket()[i].GetUpperBound()
}
