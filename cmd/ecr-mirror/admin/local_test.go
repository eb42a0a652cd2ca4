package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Nobody but this host gets at the dead letters, and no web page in a browser on it.
func TestOnlyFromHere(t *testing.T) {
	h := onlyFromHere(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tc := range []struct {
		method, from, host, header, value string
		want                              int
	}{
		{"GET", "127.0.0.1:4000", "127.0.0.1:5001", "", "", http.StatusOK},
		{"DELETE", "127.0.0.1:4000", "localhost:5001", "", "", http.StatusOK},
		{"POST", "[::1]:4000", "[::1]:5001", "", "", http.StatusOK},
		{"GET", "10.0.0.1:4000", "127.0.0.1:5001", "", "", http.StatusForbidden},
		{"GET", "10.0.0.1:4000", "127.0.0.1:5001", "X-Forwarded-For", "127.0.0.1", http.StatusForbidden},
		{"GET", "127.0.0.1:4000", "rebound.example.com:5001", "", "", http.StatusForbidden},
		{"POST", "127.0.0.1:4000", "127.0.0.1:5001", "Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		{"DELETE", "127.0.0.1:4000", "localhost:5001", "Origin", "https://example.com", http.StatusForbidden},
	} {
		r := httptest.NewRequest(tc.method, "/dead-letters", nil)
		r.RemoteAddr, r.Host = tc.from, tc.host
		if tc.header != "" {
			r.Header.Set(tc.header, tc.value)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tc.want {
			t.Errorf("%+v: %d", tc, w.Code)
		}
	}
}

// Only a request from this machine, for this machine, that no web page of another origin made.
func TestPurgeIsForThisMachine(t *testing.T) {
	purged := 0
	h := New(Options{Metrics: prometheus.NewRegistry(), Purge: map[string]Purger{"": func(string, string) error { purged++; return nil }}})
	for _, c := range []struct {
		name, peer, host, header string
		status                   int
	}{
		{"another machine", "10.0.0.1:1234", "127.0.0.1:5001", "", 403},
		{"another machine over IPv6", "[2001:db8::1]:1234", "localhost:5001", "", 403},
		{"a rebound name", "127.0.0.1:1234", "evil.example:5001", "", 403},
		{"a page of another origin", "127.0.0.1:1234", "127.0.0.1:5001", "cross-site", 403},
		{"no address", "@", "127.0.0.1:5001", "", 403},
	} {
		r := httptest.NewRequest("POST", "/purge?repository=app", nil)
		r.RemoteAddr, r.Host = c.peer, c.host
		if c.header != "" {
			r.Header.Set("Sec-Fetch-Site", c.header)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.status || purged != 0 {
			t.Errorf("%s: %d, purged %d; want %d", c.name, rec.Code, purged, c.status)
		}
	}
}
