package monitoring

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// elsewhere are metrics that are not the mirror's own, and labels that Prometheus gives.
var (
	elsewhere = []string{"up", "process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "go_goroutines"}
	targets   = []string{"job", "instance", "le"}
)

var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	ours     = regexp.MustCompile(`\becr_mirror_\w+`)
	selector = regexp.MustCompile(`\b([a-z_]+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`([a-z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
)

// Every expression names only metrics, labels and values of labels that a mirror exposes.
func TestNamesExist(t *testing.T) {
	metrics := exposed(t)
	all := make(map[string]bool)
	for _, labels := range metrics {
		for l := range labels {
			all[l] = true
		}
	}
	used := make(map[string]bool)
	for where, expr := range queries(t) {
		for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
			for _, l := range strings.FieldsFunc(m[1], func(r rune) bool { return r == ',' || r == ' ' }) {
				if !all[l] && !slices.Contains(targets, l) {
					t.Errorf("%s: no metric has the label %s", where, l)
				}
			}
		}
		for _, name := range ours.FindAllString(quoted.ReplaceAllString(expr, ""), -1) {
			if used[name] = true; metrics[name] == nil {
				t.Errorf("%s: no metric is called %s", where, name)
			}
		}
		for _, m := range selector.FindAllStringSubmatch(expr, -1) {
			name, labels := m[1], metrics[m[1]]
			if labels == nil && !slices.Contains(elsewhere, name) {
				t.Errorf("%s: no metric is called %s", where, name)
			}
			for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
				values, has := labels[l[1]]
				if !has && !slices.Contains(targets, l[1]) {
					t.Errorf("%s: %s has no label %s", where, name, l[1])
				}
				for _, v := range strings.Split(l[3], "|") {
					if values != nil && v != "$mirror" && !slices.Contains(values, v) {
						t.Errorf("%s: %s has no %s=%q", where, name, l[1], v)
					}
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		family := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_count"), "_sum")
		if !used[name] && !used[family+"_bucket"] {
			t.Errorf("%s: neither rules nor dashboard use it", name)
		}
	}
}

// The dashboard has no data source, mirror or instance of its own, and every panel says what it shows.
func TestDashboard(t *testing.T) {
	d := board(t)
	var names []string
	for _, v := range d.Templating.List {
		names = append(names, v.Name)
		if v.Type == "query" && v.Datasource.UID != "${datasource}" {
			t.Errorf("variable %s: data source %q", v.Name, v.Datasource.UID)
		}
	}
	if want := []string{"datasource", "job", "instance", "mirror"}; !slices.Equal(names, want) {
		t.Errorf("variables %q, want %q", names, want)
	}
	ids, titles := make(map[int]bool), make(map[string]bool)
	filled := make(map[[2]int]string)
	for _, p := range d.Panels {
		if ids[p.ID] || titles[p.Title] || p.Title == "" {
			t.Errorf("panel %d %q: id and title are its own", p.ID, p.Title)
		}
		ids[p.ID], titles[p.Title] = true, true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := filled[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or outside", p.Title, other)
				}
				filled[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("panel %q: description %q, unit %q, %d queries, data source %q", p.Title, p.Description, p.FieldConfig.Defaults.Unit, len(p.Targets), p.Datasource.UID)
		}
		for _, q := range p.Targets {
			if q.Datasource.UID != "${datasource}" {
				t.Errorf("panel %q: data source %q", p.Title, q.Datasource.UID)
			}
			for _, m := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(q.Expr, -1) {
				if !strings.HasPrefix(m[1], `job=~"$job", instance=~"$instance"`) {
					t.Errorf("panel %q: %s does not go by job and instance", p.Title, m[0])
				}
			}
			if strings.Contains(q.Expr, "rate(") && !strings.Contains(q.Expr, "[$__rate_interval]") {
				t.Errorf("panel %q: a rate over a time of its own: %s", p.Title, q.Expr)
			}
			for _, m := range regexp.MustCompile(`(ecr_mirror_[a-z_]+)\{([^}]*)\}`).FindAllStringSubmatch(q.Expr, -1) {
				_, of := exposed(t)[m[1]]["mirror"]
				if of != strings.Contains(m[2], `mirror=~"$mirror"`) && m[1] != "ecr_mirror_request_first_byte_seconds_bucket" {
					t.Errorf("panel %q: %s and the variable mirror", p.Title, m[1])
				}
			}
		}
	}
}
