package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Profiles are for this host, or for who logs in, and for no page of another origin.
func TestProfiles(t *testing.T) {
	h := New(Options{Metrics: prometheus.NewRegistry()})
	ask := func(path, from, site string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.RemoteAddr, r.Host = from, "127.0.0.1:5001"
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
	for path, want := range map[string]string{
		"/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=2": "TestProfiles", "/debug/pprof/heap?debug=1": "heap profile",
		"/debug/pprof/cmdline": "admin.test", "/debug/pprof/profile?seconds=1": "\x1f\x8b",
	} {
		if w := ask(path, "127.0.0.1:4000", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, %.200q", path, w.Code, w.Body)
		}
		if w := ask(path, "10.0.0.1:4000", ""); w.Code != http.StatusForbidden || strings.Contains(w.Body.String(), want) {
			t.Errorf("%s from elsewhere: %d", path, w.Code)
		}
		if w := ask(path, "127.0.0.1:4000", "cross-site"); w.Code != http.StatusForbidden {
			t.Errorf("%s from a page of another origin: %d", path, w.Code)
		}
	}
}
