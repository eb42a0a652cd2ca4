package monitoring

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// The rules are valid, and each alert fires in the cases of alerts_test.yaml in which it should, and in no other.
func TestRules(t *testing.T) {
	t.Parallel()
	programs.Need(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "--lint=all", "--lint-fatal", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), "promtool", args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// Every alert has cases of both kinds.
func TestRulesAreTested(t *testing.T) {
	var file struct {
		Tests []struct {
			Name  string
			Exprs []struct {
				Expr    string
				Samples []any `yaml:"exp_samples"`
			} `yaml:"promql_expr_test"`
		}
	}
	if err := yaml.Unmarshal(read(t, "alerts_test.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	fires, quiet := make(map[string]int), make(map[string]int)
	for _, c := range file.Tests {
		name, what, _ := strings.Cut(c.Name, " ")
		for _, e := range c.Exprs {
			if !strings.Contains(e.Expr, `alertname="`+name+`"`) || strings.HasPrefix(what, "fires: ") != (len(e.Samples) > 0) {
				t.Errorf("%s: asks for %s and expects %v", c.Name, e.Expr, e.Samples)
			}
			if len(e.Samples) > 0 {
				fires[name]++
			} else {
				quiet[name]++
			}
		}
	}
	for _, a := range alerts(t) {
		if fires[a.Alert] == 0 || quiet[a.Alert] == 0 {
			t.Errorf("%s: fires in %d cases, and is quiet in %d", a.Alert, fires[a.Alert], quiet[a.Alert])
		}
		delete(fires, a.Alert)
	}
	if len(fires) > 0 {
		t.Errorf("cases of alerts that there are not: %v", fires)
	}
}

// Every alert says what whoever is woken by it has to know, and the runbook has one section for each, and no other.
func TestRunbook(t *testing.T) {
	const link = "https://github.com/ecr-mirror/ecr-mirror/blob/main/docs/runbook.md#"
	var sections, names []string
	text := string(read(t, "..", "..", "docs", "runbook.md"))
	for _, s := range strings.Split(text, "\n## ")[1:] {
		name, body, _ := strings.Cut(s, "\n")
		sections = append(sections, name)
		for _, want := range []string{"**Pulls:**", "**Do:**"} {
			if !strings.Contains(body, want) {
				t.Errorf("runbook: %s has no %s", name, want)
			}
		}
	}
	for _, a := range alerts(t) {
		names = append(names, a.Alert)
		if got := a.Annotations["runbook_url"]; got != link+strings.ToLower(a.Alert) {
			t.Errorf("%s: runbook_url %q", a.Alert, got)
		}
		if !strings.HasSuffix(a.Annotations["summary"], ".") || strings.Contains(a.Annotations["summary"], "{{") {
			t.Errorf("%s: summary %q: want one sentence that is the same for all instances", a.Alert, a.Annotations["summary"])
		}
		if d := a.Annotations["description"]; !strings.Contains(d, "$value") && a.Expr[:2] != "up" && !strings.Contains(a.Expr, "_down") || !strings.Contains(d, "$labels") {
			t.Errorf("%s: description %q: want who it is about, and the figure", a.Alert, d)
		}
		if s := a.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q", a.Alert, s)
		}
		if a.For == "" && !regexp.MustCompile(`\[\d+h\]`).MatchString(a.Expr) {
			t.Errorf("%s: fires at once", a.Alert)
		}
	}
	slices.Sort(names)
	slices.Sort(sections)
	if !slices.Equal(names, sections) {
		t.Errorf("alerts %q\nsections of the runbook %q", names, sections)
	}
}
