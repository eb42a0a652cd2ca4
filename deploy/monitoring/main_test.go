// Package monitoring tests the alert rules and the dashboard: that they name what a mirror exposes, by docs/metrics.md, which is
// held to the mirror; that each alert fires when it should and not when it should not, by promtool; that docs/runbook.md says what to
// do about it; and, for real, that Prometheus takes all of it, and alerts when a registry is gone.
//
// promtool and prometheus that are not installed skip their tests; with CI=true they fail them.
//
// # Limitations
//
// There is no Grafana: the dashboard is checked for its form, and its queries run in Prometheus.
package monitoring

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// alert is one rule of alerts.yaml.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct{ Groups []struct{ Rules []alert } }
	if err := yaml.Unmarshal(read(t, "alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		all = append(all, g.Rules...)
	}
	if len(all) < 10 {
		t.Fatalf("%d alerts only", len(all))
	}
	return all
}

// dashboard is what is looked at of dashboard.json.
type dashboard struct {
	UID, Title string
	Templating struct{ List []variable }
	Panels     []panel
}

type variable struct {
	Name, Type, Definition string
	Datasource             struct{ UID string }
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct {
		RefID, Expr string
		Datasource  struct{ UID string }
	}
}

func board(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal(read(t, "dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) < 30 {
		t.Fatalf("%d panels only", len(d.Panels))
	}
	return d
}

// queries are all expressions of rules and dashboard by where they stand.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, a := range alerts(t) {
		all[a.Alert] = a.Expr
	}
	for _, p := range board(t).Panels {
		for _, target := range p.Targets {
			all[p.Title+" "+target.RefID] = target.Expr
		}
	}
	return all
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// exposed is what docs/metrics.md says: the labels of each metric with their values, nil for those that the configuration holds.
func exposed(t *testing.T) map[string]map[string][]string {
	t.Helper()
	metrics, values := make(map[string]map[string][]string), make(map[string][]string)
	kinds := make(map[string]string)
	quoted := regexp.MustCompile("`([^`]*)`")
	for line := range strings.Lines(string(read(t, "..", "..", "docs", "metrics.md"))) {
		cells := strings.Split(line, " | ")
		names := quoted.FindAllStringSubmatch(cells[0], -1)
		if !strings.HasPrefix(line, "| `") || len(names) == 0 {
			continue
		}
		if len(cells) == 4 {
			metrics[names[0][1]], kinds[names[0][1]] = make(map[string][]string), cells[1]
			for _, l := range quoted.FindAllStringSubmatch(cells[2], -1) {
				metrics[names[0][1]][l[1]] = nil
			}
			continue
		}
		key := names[0][1]
		if len(names) > 1 {
			key = names[1][1] + "/" + key
		}
		for _, v := range quoted.FindAllStringSubmatch(cells[1], -1) {
			values[key] = append(values[key], v[1])
		}
	}
	if len(metrics) < 40 || len(values) < 10 {
		t.Fatalf("docs/metrics.md: %d metrics, %d labels", len(metrics), len(values))
	}
	for name, labels := range metrics {
		for l := range labels {
			labels[l] = values[l]
			if v := values[name+"/"+l]; v != nil {
				labels[l] = v
			}
		}
	}
	for name, kind := range kinds {
		if kind == "histogram" {
			for _, suffix := range []string{"_bucket", "_count", "_sum"} {
				metrics[name+suffix] = metrics[name]
			}
			delete(metrics, name)
		}
	}
	return metrics
}
