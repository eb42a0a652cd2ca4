package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	herself = "127.0.0.1:40000"
	remote  = "10.0.0.1:40000"
)

// ask asks as from a client address. A form is posted.
func ask(t *testing.T, h http.Handler, from, path string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
	if form != nil {
		r = httptest.NewRequestWithContext(t.Context(), "POST", path, strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	r.RemoteAddr, r.Host = from, "127.0.0.1:5001"
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// Whoever reaches the port may read, and sees nothing that changes something; the browser is told what the page may do.
func TestPageIsForReading(t *testing.T) {
	w := newWorld(t)
	w.busy()
	h := w.handler()
	w.notYet = []string{"shutting down"}
	there, here := ask(t, h, remote, "/", nil), ask(t, h, herself, "/", nil)
	for _, text := range []string{"payments/api", "v3.2.1", "not authorized to perform: ecr:PutImage", "<strong>Not ready:</strong> shutting down", "ap-southeast-2", "14 readers", "$19.28"} {
		if !strings.Contains(there.Body.String(), text) || !strings.Contains(here.Body.String(), text) {
			t.Errorf("the page lacks %q", text)
		}
	}
	if strings.Contains(there.Body.String(), "/forms/") || strings.Count(here.Body.String(), `action="/forms/`) != 8 { // all, three letters twice, purge
		t.Errorf("forms: %d there, %d here", strings.Count(there.Body.String(), "/forms/"), strings.Count(here.Body.String(), `action="/forms/`))
	}
	for _, path := range []string{"/", "/overview", "/page.css", "/page.js", "/icon.svg"} {
		got := ask(t, h, remote, path, nil)
		if got.Code != http.StatusOK || got.Header().Get("X-Content-Type-Options") != "nosniff" || got.Header().Get("Cache-Control") != "no-store" ||
			!strings.HasPrefix(got.Header().Get("Content-Security-Policy"), "default-src 'none'; script-src 'self';") || !strings.Contains(got.Header().Get("Content-Security-Policy"), "frame-ancestors 'none'") {
			t.Errorf("%s: %d %v", path, got.Code, got.Header())
		}
	}
	for _, path := range []string{"/forms/retry", "/forms/drop", "/forms/purge"} {
		if got := ask(t, h, remote, path, url.Values{"all": {"1"}, "repository": {"app"}}); got.Code != http.StatusForbidden || got.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s from elsewhere: %d", path, got.Code)
		}
		if got := ask(t, h, herself, path, nil); got.Code != http.StatusMethodNotAllowed {
			t.Errorf("GET %s: %d", path, got.Code)
		}
	}
	if n := w.Queue.Pending(); n.Dead+n.Conflict != 2 || w.purged != nil {
		t.Errorf("something was changed: %+v, purged %q", n, w.purged)
	}
	for path, code := range map[string]int{"/other": 404, "/?after=!": 400, "/?after=" + strings.Repeat("A", 5000): 400, "/overview?after=!": 400, "/web/page.html": 404} {
		if got := ask(t, h, remote, path, nil); got.Code != code {
			t.Errorf("%.20s: %d, want %d", path, got.Code, code)
		}
	}
}

// An asset that is asked for by the name of its content may be kept.
func TestAssets(t *testing.T) {
	w := newWorld(t)
	h := w.handler()
	page := ask(t, h, remote, "/", nil).Body.String()
	_, rest, _ := strings.Cut(page, `<link rel="stylesheet" href="`)
	href, _, _ := strings.Cut(rest, `"`)
	if got := ask(t, h, remote, href, nil); got.Code != http.StatusOK || !strings.Contains(got.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%s: %d %v", href, got.Code, got.Header())
	}
}

// Nothing that a registry says, nor a query, is more than text.
func TestPageEscapes(t *testing.T) {
	const evil = `"><script>alert(1)</script><img src=x onerror=alert(2)> javascript:alert(3)`
	w := newWorld(t)
	w.failed("destination", "app", "v1", "x", registry.Errorf(registry.Denied, "%s", evil))
	must(t, w.Queue.PutLetter(t.Context(), evil, []byte(evil), registry.Errorf(registry.Invalid, "%s", evil)))
	w.notYet = []string{evil}
	w.Version = evil
	h := w.handler()
	for _, path := range []string{"/", "/?" + url.Values{"repository": {evil}, "tag": {evil}, "state": {evil}, "mirror": {evil}, "notice": {evil}}.Encode(), "/?after=" + url.QueryEscape(evil)} {
		body := ask(t, h, herself, path, nil).Body.String()
		if strings.Contains(body, "<script>") || strings.Contains(body, "<img") || !strings.Contains(body, "&lt;script&gt;alert(1)") {
			t.Errorf("%.20s: the page has what it must not have, or lacks what it was given", path)
		}
	}
	if body := ask(t, h, herself, "/forms/purge", url.Values{"repository": {evil}}).Body.String(); strings.Contains(body, "<script>") || strings.Contains(body, "<img") {
		t.Error("what a form was answered has what it must not have")
	}
}

// The same as JSON.
func TestOverview(t *testing.T) {
	w := newWorld(t)
	w.busy()
	got := ask(t, w.handler(), remote, "/overview?repository=payments/&tag=v3.2.1", nil)
	var v Overview
	must(t, json.Unmarshal(got.Body.Bytes(), &v))
	if len(v.Images) != 1 || len(v.Images[0].At) != 2 {
		t.Fatalf("images: %+v", v.Images)
	}
	states := []string{v.Images[0].At[0].Destination, v.Images[0].At[0].State, v.Images[0].At[1].Destination, v.Images[0].At[1].State}
	if d := cmp.Diff([]string{frankfurt, "done", sydney, "leased"}, states); d != "" || v.Images[0].At[0].Lag != 5 {
		t.Errorf("states, and lag %v (-want +got):\n%s", v.Images[0].At[0].Lag, d)
	}
	want := []tier{{"local", 48210, 3120 << 30, 0}, {"destination", 1922, 141 << 30, 144 << 30}, {"source", 640, 52 << 30, 213 << 30}}
	if d := cmp.Diff(want, v.Traffic.Tiers); d != "" || v.Traffic.Sent != 399<<30 || v.Traffic.Evictions != 318 {
		t.Errorf("traffic %+v (-want +got):\n%s", v.Traffic, d)
	}
	if d := cmp.Diff([]Lag{{west, sydney, 100, 30, 60}, {west, "destination", 100, 5, 10}}, v.Traffic.Lags); d != "" {
		t.Errorf("lags (-want +got):\n%s", d)
	}
	if len(v.Copying) != 3 || v.Copying[0].Sent != 412<<20 || v.Copying[1].Attempt != 2 || len(v.Fetching) != 1 || v.Fetching[0].Readers != 14 {
		t.Errorf("under way: %+v %+v", v.Copying, v.Fetching)
	}
	if v.Queue.Jobs != 18 || v.Queue.Lanes[3].Jobs != 14 || v.Queue.Dead != 1 || v.Queue.Conflict != 1 || len(v.Letters) != 3 || v.Cache.Objects != 4213 || len(v.Mirrors[0].Upstreams) != 2 || !v.Ready {
		t.Errorf("%+v", v)
	}
}

// The forms do what they say, and answer with the page: what was done, or why not.
func TestForms(t *testing.T) {
	w := newWorld(t)
	w.busy()
	h := w.handler()
	post := func(path, location string, code int, text string, form ...string) {
		t.Helper()
		v := url.Values{}
		for i := 0; i < len(form); i += 2 {
			v.Set(form[i], form[i+1])
		}
		got := ask(t, h, herself, path, v)
		if got.Code != code || got.Header().Get("Location") != location || !strings.Contains(got.Body.String(), text) {
			t.Errorf("%s %v: %d to %q, want %d to %q with %q", path, form, got.Code, got.Header().Get("Location"), code, location, text)
		}
	}
	dead := jobID(job("destination", "search/index", "v9", "i", 0, w.now).Key)
	post("/forms/retry", "/?notice=retried#dead-letters", 303, "", "id", dead)
	if n := w.Queue.Pending(); n.Dead != 0 || n.Conflict != 1 {
		t.Errorf("after a retry: %+v", n)
	}
	post("/forms/retry", "", 404, "not found", "id", dead)
	post("/forms/retry", "", 400, "has no events in the configuration", "all", "1") // the job is tried; the event cannot be
	if n := w.Queue.Pending(); n.Dead != 0 || n.Conflict != 0 {
		t.Errorf("after all were tried: %+v", n)
	}
	letter := ""
	for l, err := range w.Queue.Letters(t.Context()) {
		must(t, err)
		letter = l.ID
	}
	post("/forms/drop", "/?notice=dropped#dead-letters", 303, "", "id", letter)
	post("/forms/drop", "", 404, "not found", "id", letter)
	post("/forms/purge", "/?notice=purged#purge", 303, "", "registry", strings.ToUpper(frankfurt), "repository", "team/app", "tag", "v1")
	post("/forms/purge", "/?notice=purged#purge", 303, "", "repository", "team/app")
	post("/forms/purge", "", 404, "is not mirrored here", "registry", "elsewhere", "repository", "team/app")
	post("/forms/purge", "", 400, "repository", "repository", "../app")
	post("/forms/purge", "", 500, "not purged: the log says why", "repository", "broken")
	post("/forms/purge", "", 400, "form: ", "repository", strings.Repeat("a", maxForm))
	if d := cmp.Diff([]string{frankfurt + " team/app:v1", " team/app:"}, w.purged); d != "" {
		t.Errorf("purged (-want +got):\n%s", d)
	}
	if body := ask(t, h, herself, "/?notice=purged", nil).Body.String(); !strings.Contains(body, notices["purged"]) {
		t.Error("the page does not say what was done")
	}
}

// However many look at the page, metrics and jobs are looked at every so often; after a change at once.
func TestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		h := w.handler()
		look := func(n int) {
			for range n {
				if got := ask(t, h, herself, "/", nil); got.Code != http.StatusOK {
					t.Fatal(got.Code)
				}
			}
		}
		look(100)
		if w.gathers != 1 {
			t.Errorf("%d looks for 100 pages", w.gathers)
		}
		time.Sleep(snapshotFor + 1)
		look(100)
		if w.gathers != 2 {
			t.Errorf("%d looks after a while", w.gathers)
		}
		ask(t, h, herself, "/forms/purge", url.Values{"repository": {"app"}})
		look(1)
		if w.gathers != 3 {
			t.Errorf("%d looks after a change", w.gathers)
		}
	})
}

func TestSaving(t *testing.T) {
	const gb = 1 << 30
	for _, tc := range []struct {
		served, crossed int64
		want            Saving
	}{
		{0, 0, Saving{}},
		{1000 * gb, 100 * gb, Saving{Transfer: 18, NAT: 4.5, Zones: 10, Net: 3.5}},
		{100 * gb, 100 * gb, Saving{NAT: 4.5, Zones: 1, Net: -5.5}},
		{0, 50 * gb, Saving{Transfer: -1, NAT: 2.25, Net: -3.25}}, // replicated, and pulled by nobody yet
	} {
		p := Prices{TransferPerGB: 0.02, NATPerGB: 0.045, ZonePerGB: 0.01}
		tc.want.Prices, tc.want.Served, tc.want.Crossed = p, tc.served, tc.crossed
		if d := cmp.Diff(tc.want, savingOf(p, tc.served, tc.crossed), cmpopts.EquateApprox(0, 1e-9)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// What no bucket but the last holds took longer than anybody can say.
func TestLag(t *testing.T) {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "x", Buckets: []float64{1, 2}})
	for _, v := range []float64{0.5, 1.5, 3} {
		h.Observe(v)
	}
	var m dto.Metric
	must(t, h.Write(&m))
	for part, want := range map[float64]float64{0.3: 1, 0.5: 2, 0.6: 2, 0.95: -1} {
		if got := within(m.GetHistogram(), part); got != want {
			t.Errorf("%v within %v, want %v", part, got, want)
		}
	}
}

func TestWords(t *testing.T) {
	now := time.Now()
	for got, want := range map[string]string{
		size(0): "0 B", size(999): "999 B", size(1000): "1.0 KiB", size(5 << 20): "5.0 MiB", size(700 << 30): "700 GiB", size(3 << 60): "3072.0 PiB",
		count(7): "7", count(1234): "1\u202f234", count(int64(-1234567)): "-1\u202f234\u202f567",
		span(-time.Second): "0 ms", span(1500 * time.Millisecond): "1.5 s", span(75 * time.Second): "1 min 15 s", span(50 * time.Hour): "2 d 2 h", span(61 * time.Minute): "1 h 1 min",
		ago(now, now): "now", ago(now, now.Add(-25*time.Second)): "20 s ago", ago(now, now.Add(5*time.Minute)): "in 5 min", ago(now, now.Add(-72*time.Hour)): "3 d ago",
		strings.Join(placeName(frankfurt), " "): "eu-central-1 111122223333", strings.Join(placeName("registry.example.com:5000"), " "): "registry.example.com:5000",
		strings.Join(placeName("111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com"), " "): "us-gov-west-1 111122223333",
		dollars(-9.585): "−$9.59", dollars(0): "$0.00", dollars(-0.004): "$0.00", shortDigest("sha256:0123456789abcdef"): "0123456789ab", shortDigest("x"): "x", percent(0.951): "95.1 %",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
