package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	diff "github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

var update = flag.Bool("update", false, "write docs/metrics.md and docs/commands.md")

const failures = "not_found denied invalid conflict throttled unavailable corrupt internal_error"

const results = "ok " + failures

// labels are all that metrics have, with the values that they take. What begins with "the " is a set that the configuration, and
// nobody who sends a request, makes larger.
var labels = map[string]string{
	"mirror":      "the mirrors' first names",
	"destination": "the destinations: destination is the mirror's own, others go by their hosts",
	"registry":    "the hosts of the registries in the configuration",
	"account":     "the accounts of the ECR registries",
	"region":      "the regions of the ECR registries",
	"from":        "the URLs of queues and the paths of webhooks",
	"version":     "the version of the program",
	"goversion":   "the version of Go that built it",

	"endpoint":                             "base manifest blob tags referrers uploads catalog",
	"tier":                                 "local destination source",
	"class":                                results + " client_left",
	"limit":                                "total client",
	"lane":                                 "client event sweep backfill",
	"state":                                "dead conflict",
	"action":                               "add_content add_tag move_tag conflict expired",
	"outcome":                              "handled ignored unwanted unknown malformed foreign failed",
	"result":                               results,
	"call":                                 "the calls of ECR's API that are used",
	"ecr_mirror_trace_spans_total/result":  "ok failed",
	"ecr_mirror_upstream_calls_total/call": "resolve stat open",
	"ecr_mirror_event_queue_errors_total/call": "receive delete hide",
	"ecr_mirror_fills_total/result":            "complete corrupt damaged refused uncached interrupted failed",
	"ecr_mirror_job_results_total/result":      "done found partial superseded gone unwanted echo handed_over " + failures,
	"ecr_mirror_deletions_total/result":        "deleted not_ours still_there may_have_expired no_repository refused failed unsure",
	"ecr_mirror_token_checks_total/result":     "remembered confirmed denied outage known",
}

func valuesOf(metric, label string) string {
	if v, ok := labels[metric+"/"+label]; ok {
		return v
	}
	return labels[label]
}

// Whatever clients, events and registries say, the labels of all metrics stay within the table above; docs/metrics.md lists them all, and
// they are named as Prometheus has it.
func TestMetrics(t *testing.T) {
	r := newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
  replication: {sweep: 1m, bytesPerDay: 1GiB, deletes: propagate}
`+strings.Replace(webhookYAML(t), "{webhook", `{sqs: "$queue", webhook`, 1)+`
- names: [second.example.com]
  source: {registry: 333333333333.dkr.ecr.eu-west-1.amazonaws.com, endpoint: $endpoint}
  auth: {ecr: true}
- names: [third.example.com]
  source: {registry: $front, username: AWS, passwordFile: /nowhere}
traces: {endpoint: "http://127.0.0.1:1", sample: 1}
`, "333333333333/eu-west-1")
	dir := t.TempDir()
	writeCert(t, dir, "tls", time.Now())
	c, err := tlsConfig(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"), "", r.app.log)
	must(t, err)
	must(t, r.app.metrics.Register(certificateExpiry(c)))
	r.hostile()
	families, err := r.app.metrics.Gather()
	must(t, err)
	checkLabels(t, families)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	must(t, err)
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "ecr_mirror_") { // the others are the client library's
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	doc := metricsDoc(t, r.app.metrics, families)
	path := filepath.Join("..", "..", "docs", "metrics.md")
	if *update {
		must(t, os.WriteFile(path, doc, 0o644))
	}
	kept, err := os.ReadFile(path)
	must(t, err)
	if d := diff.Diff(string(kept), string(doc)); d != "" {
		t.Errorf("go test ./cmd/ecr-mirror -run TestMetrics -update (-docs/metrics.md +now):\n%s", d)
	}
}

// hostile pulls an image, and sends what nobody should: names, tags and hosts that no two requests share, to upstreams that answer
// in odd ways.
func (r *rig) hostile() {
	r.t.Helper()
	img := registrytest.Image(1, 1<<10)
	must(r.t, r.source.CreateRepository("app"))
	registrytest.Push(r.t, r.push, "app", "v1", img)
	must(r.t, r.pulled("app", "v1"))
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.idle()
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		return ecrtest.Fault{Status: []int{0, 418, 429, 500, 403}[c.Nth%5], Code: fmt.Sprint("Odd", c.Nth), Message: c.Target}
	})
	names := []string{"app", "never/seen", "a", strings.Repeat("x/", 90) + "y", "UPPER", "a\x00b", "é", "..", `";drop`, "{{.}}", "\n"}
	for i, name := range names {
		for _, path := range []string{fmt.Sprint("manifests/v", i), "manifests/" + img.Desc.Digest.String(), "blobs/" + registrytest.Image(uint64(i), 1<<10).Blobs[0].Desc.Digest.String(),
			"tags/list", "referrers/" + img.Desc.Digest.String(), "blobs/uploads/", fmt.Sprint("nothing", i), fmt.Sprint("blobs/sha256:", i)} {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, fmt.Sprint("ODD", i)} {
				r.odd(method, name, path, i)
			}
		}
		event := fmt.Sprintf(`{"source": "aws.ecr", "detail-type": "ECR Image Action", "account": "%012d", "region": "nowhere", "time": "2026-11-21T15:00:00Z",
			"detail": {"result": "SUCCESS", "action-type": "PUSH", "repository-name": %q, "image-tag": "v1", "image-digest": %q}}`, i, name, img.Desc.Digest)
		r.post("/events", webhookToken, event)
		r.post("/events", "not the token, "+fmt.Sprint(i), event)
	}
}

func (r *rig) odd(method, name, path string, i int) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.url, nil)
	must(r.t, err)
	ns := []string{"", fmt.Sprintf("elsewhere-%d.example.com", i), demoSourceHost, "second.example.com", "third.example.com"}[i%5]
	req.URL.Path, req.URL.RawQuery = "/v2/"+name+"/"+path, url.Values{"ns": {ns}}.Encode()
	if i%2 == 0 {
		req.SetBasicAuth("AWS", fmt.Sprint("token", i))
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil { // else the connection was cut
		res.Body.Close()
	}
}

func checkLabels(t *testing.T, families []*dto.MetricFamily) {
	t.Helper()
	seen := 0
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "ecr_mirror_") {
			continue
		}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				seen++
				known := valuesOf(f.GetName(), l.GetName())
				switch v := l.GetValue(); {
				case known == "":
					t.Errorf("%s: label %s=%q is not in the table", f.GetName(), l.GetName(), v)
				case l.GetName() == "call" && strings.HasPrefix(known, "the "):
					if !regexp.MustCompile(`^[A-Z][A-Za-z]+$`).MatchString(v) {
						t.Errorf("%s: call=%q", f.GetName(), v)
					}
				case strings.HasPrefix(known, "the "):
					if !configured[l.GetName()].MatchString(v) && v != "" {
						t.Errorf("%s: %s=%q, which the configuration does not hold", f.GetName(), l.GetName(), v)
					}
				case v != "" && !slices.Contains(strings.Fields(known), v):
					t.Errorf("%s: %s=%q, want one of %s", f.GetName(), l.GetName(), v, known)
				}
			}
		}
	}
	if seen < 300 {
		t.Errorf("%d labels only", seen)
	}
}

// configured are the values that TestMetrics' configuration holds.
var configured = map[string]*regexp.Regexp{
	"mirror":      regexp.MustCompile(`^(` + regexp.QuoteMeta(demoSourceHost) + `|(second|third)\.example\.com)$`),
	"destination": regexp.MustCompile(`^destination$`),
	"registry":    regexp.MustCompile(`^([0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com|127\.0\.0\.1:[0-9]+)$`),
	"account":     regexp.MustCompile(`^(` + demoSourceAccount + `|` + demoDestinationAccount + `|333333333333)$`),
	"region":      regexp.MustCompile(`^(` + demoSourceRegion + `|` + demoDestinationRegion + `|eu-west-1)$`),
	"from":        regexp.MustCompile(`^(/events|http://127\.0\.0\.1:[0-9]+/.+/` + demoQueue + `)$`),
	"version":     regexp.MustCompile(`.`),
	"goversion":   regexp.MustCompile(`^go`),
}

// metricsDoc is docs/metrics.md: every metric that is registered, whether it has a value yet or not.
func metricsDoc(t *testing.T, registry *prometheus.Registry, families []*dto.MetricFamily) []byte {
	t.Helper()
	types := make(map[string]string)
	for _, f := range families {
		types[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	described := make(chan *prometheus.Desc)
	go func() { registry.Describe(described); close(described) }()
	form := regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	rows, used := make(map[string]string), make(map[string]bool)
	for d := range described {
		m := form.FindStringSubmatch(d.String())
		if m == nil {
			t.Fatalf("what the client library prints has another form: %s", d)
		}
		name, err := strconv.Unquote(m[1])
		must(t, err)
		help, err := strconv.Unquote(m[2])
		must(t, err)
		if !strings.HasPrefix(name, "ecr_mirror_") {
			continue
		}
		kind := types[name]
		if kind == "" && strings.HasSuffix(name, "_total") {
			kind = "counter"
		} else if kind == "" && name != "ecr_mirror_sweep_last_success_timestamp_seconds" && name != "ecr_mirror_queue_left_seconds" && name != "ecr_mirror_deletions_waiting" {
			t.Errorf("%s: has no value here, so its type is not known", name)
		} else if kind == "" {
			kind = "gauge"
		}
		var names []string
		for _, l := range regexp.MustCompile(`([a-z]+)="`).FindAllStringSubmatch(m[3], -1) {
			names = append(names, l[1])
		}
		names = append(names, strings.FieldsFunc(m[4], func(r rune) bool { return r == ',' })...)
		for i, l := range names {
			if valuesOf(name, l) == "" {
				t.Errorf("%s: label %s is not in the table", name, l)
			}
			used[l], used[name+"/"+l] = true, true
			names[i] = "`" + l + "`"
		}
		rows[name] = fmt.Sprintf("| `%s` | %s | %s | %s |\n", name, kind, strings.Join(names, ", "), strings.ReplaceAll(help, "|", "\\|"))
	}
	var b bytes.Buffer
	b.WriteString(`# Metrics

What the admin port answers at ` + "`/metrics`" + `, beside the Go and process metrics of Prometheus' client library. ` + "`go test ./cmd/ecr-mirror -run TestMetrics -update`" + `
writes this page. Alert rules and a Grafana dashboard that use them are in [deploy/monitoring](../deploy/monitoring); [runbook.md](runbook.md)
says what to do about each alert.

| metric | type | labels | meaning |
|---|---|---|---|
`)
	for _, name := range slices.Sorted(maps.Keys(rows)) {
		b.WriteString(rows[name])
	}
	b.WriteString(`
## Labels

Their values are few, whatever clients, events and registries send: no repository, tag, digest or address is among them.

| label | values |
|---|---|
`)
	byLabel := func(a, b string) int {
		return cmp.Compare(a[strings.LastIndex(a, "/")+1:]+a, b[strings.LastIndex(b, "/")+1:]+b)
	}
	for _, l := range slices.SortedFunc(maps.Keys(labels), byLabel) {
		if !used[l] {
			t.Errorf("label %s is in the table, and no metric has it", l)
		}
		values, metric := labels[l], ""
		if name, label, ok := strings.Cut(l, "/"); ok {
			l, metric = label, " of `"+name+"`"
		}
		if !strings.HasPrefix(values, "the ") {
			values = "`" + strings.Join(strings.Fields(values), "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s`%s | %s |\n", l, metric, values)
	}
	return b.Bytes()
}
