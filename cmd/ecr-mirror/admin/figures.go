package admin

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// figures are sums of what /metrics says, so that the page and the metrics agree.
type figures struct {
	Evictions  int64  `json:"evictions"`
	Sent       int64  `json:"sentBytes"` // to destinations
	Stale      int64  `json:"staleAnswers"`
	Shed       int64  `json:"shedRequests"`
	Mismatches int64  `json:"digestMismatches"`
	Tiers      []tier `json:"tiers"`
	Lags       []Lag  `json:"lags"`
}

// tier is what one tier has answered.
type tier struct {
	Name     string `json:"name"`
	Requests int64  `json:"requests"` // for manifests and blobs that were answered well
	Bytes    int64  `json:"bytes"`    // to clients
	Read     int64  `json:"readBytes"`
}

func (f figures) requests() (n int64) {
	for _, t := range f.Tiers {
		n += t.Requests
	}
	return n
}

func (f figures) served() (n int64) {
	for _, t := range f.Tiers {
		n += t.Bytes
	}
	return n
}

func (f figures) tier(name string) tier {
	i := slices.IndexFunc(f.Tiers, func(t tier) bool { return t.Name == name })
	if i < 0 {
		return tier{Name: name}
	}
	return f.Tiers[i]
}

// tierNames are the tiers in the order in which they are asked.
var tierNames = [...]string{"local", "destination", "source"}

// readFigures gathers the metrics. What fails to be gathered is left out, as /metrics would.
func readFigures(g prometheus.Gatherer) figures {
	families, _ := g.Gather() // with what there is
	by := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		by[f.GetName()] = f
	}
	sum := func(name string, want map[string][]string) (total int64) {
		for _, m := range by[name].GetMetric() {
			if has(m, want) {
				total += int64(m.GetCounter().GetValue())
			}
		}
		return total
	}
	f := figures{
		Evictions: sum("ecr_mirror_evictions_total", nil), Sent: sum("ecr_mirror_replicated_bytes_total", nil),
		Stale: sum("ecr_mirror_stale_answers_total", nil), Shed: sum("ecr_mirror_shed_total", nil),
		Mismatches: sum("ecr_mirror_digest_mismatches_total", nil),
	}
	f.Lags = append([]Lag{}, lagsOf(by["ecr_mirror_replication_lag_seconds"])...)
	for _, name := range tierNames {
		only := map[string][]string{"tier": {name}}
		f.Tiers = append(f.Tiers, tier{Name: name,
			Requests: sum("ecr_mirror_requests_total", map[string][]string{"tier": {name}, "class": {"ok"}, "endpoint": {"manifest", "blob"}}),
			Bytes:    sum("ecr_mirror_served_bytes_total", only),
			Read:     sum("ecr_mirror_upstream_bytes_total", only)})
	}
	return f
}

// has reports whether each of the labels has one of the values.
func has(m *dto.Metric, want map[string][]string) bool {
	for name, values := range want {
		if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == name && slices.Contains(values, l.GetValue()) }) {
			return false
		}
	}
	return true
}
