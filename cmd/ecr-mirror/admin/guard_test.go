package admin

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// Nobody but this host gets at the dead letters, and no web page in a browser on it.
func TestOnlyFromHere(t *testing.T) {
	h := newGuard(nil, slog.New(slog.DiscardHandler)).only(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for _, tc := range []struct {
		method, from, host, header, value string
		want                              int
	}{
		{"GET", "127.0.0.1:4000", "127.0.0.1:5001", "", "", http.StatusOK},
		{"DELETE", "127.0.0.1:4000", "localhost:5001", "", "", http.StatusOK},
		{"POST", "[::1]:4000", "[::1]:5001", "", "", http.StatusOK},
		{"GET", "10.0.0.1:4000", "127.0.0.1:5001", "", "", http.StatusForbidden},
		{"GET", "10.0.0.1:4000", "127.0.0.1:5001", "X-Forwarded-For", "127.0.0.1", http.StatusForbidden},
		{"GET", "127.0.0.1:4000", "127.0.0.1:5001", "X-Forwarded-For", "192.0.2.1", http.StatusForbidden}, // a proxy on this host, for anybody
		{"POST", "127.0.0.1:4000", "127.0.0.1:5001", "Forwarded", "for=192.0.2.1", http.StatusForbidden},
		{"POST", "127.0.0.1:4000", "127.0.0.1:5001", "X-Real-Ip", "192.0.2.1", http.StatusForbidden},
		{"POST", "127.0.0.1:4000", "127.0.0.1:5001", "Via", "1.1 proxy", http.StatusForbidden},
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

// login lets in who knows the password.
type login struct{ asked int }

func (l *login) Authenticate(r *http.Request, _ serve.Access) error {
	l.asked++
	if _, password, _ := r.BasicAuth(); password != "right" {
		return registry.Errorf(registry.Denied, "wrong user or password")
	}
	return nil
}

// With a login everybody who changes something has to log in, on this host too, and nobody may guess for long.
func TestLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := new(login)
		h := newGuard(l, slog.New(slog.DiscardHandler)).only(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		ask := func(from, password, header, value string) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/purge", nil)
			r.RemoteAddr, r.Host = from, "mirror.example.com"
			if password != "" {
				r.SetBasicAuth("me", password)
			}
			if header != "" {
				r.Header.Set(header, value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		want := func(w *httptest.ResponseRecorder, code, asked int) {
			t.Helper()
			if w.Code != code || l.asked != asked {
				t.Errorf("%d after %d looks at a password, want %d after %d", w.Code, l.asked, code, asked)
			}
		}
		const far, near = "10.0.0.1:4000", "127.0.0.1:4000"
		w := ask(near, "", "", "")
		want(w, http.StatusUnauthorized, 0)
		if got := w.Header().Get("WWW-Authenticate"); got != `Basic realm="ecr-mirror admin", charset="UTF-8"` {
			t.Errorf("challenge %q", got)
		}
		want(ask(far, "right", "", ""), http.StatusOK, 1)
		want(ask(far, "right", "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, 1)
		want(ask(far, "right", "Origin", "https://evil.example"), http.StatusForbidden, 1)
		want(ask(far, "right", "Sec-Fetch-Site", "same-origin"), http.StatusOK, 2)
		for range mostTries {
			ask(far, "wrong", "", "")
		}
		want(ask(far, "wrong", "", ""), http.StatusTooManyRequests, 2+mostTries)
		want(ask(far, "right", "", ""), http.StatusTooManyRequests, 2+mostTries)
		want(ask(near, "right", "", ""), http.StatusOK, 3+mostTries) // another client
		time.Sleep(tryAfter)
		want(ask(far, "right", "", ""), http.StatusOK, 4+mostTries) // which costs nothing
		want(ask(far, "right", "", ""), http.StatusOK, 5+mostTries)
		want(ask(far, "wrong", "", ""), http.StatusUnauthorized, 6+mostTries)
		want(ask(far, "wrong", "", ""), http.StatusTooManyRequests, 6+mostTries)
		time.Sleep(mostTries * tryAfter)
		for range mostTries {
			if asked := l.asked; ask(far, "wrong", "", "").Code != http.StatusUnauthorized || l.asked != asked+1 {
				t.Error("a try was lost")
			}
		}
		want(ask(far, "wrong", "", ""), http.StatusTooManyRequests, 6+2*mostTries)
	})
}

// Who reaches the port may ask for the status of an image, by a login or not; but that asks registries, so a page of another origin
// has no browser ask.
func TestStatusIsNotForOtherPages(t *testing.T) {
	asked := 0
	h := New(Options{Metrics: prometheus.NewRegistry(), Login: new(login), Status: func(context.Context, url.Values) (any, error) { asked++; return "far", nil }})
	for site, code := range map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403} {
		r := httptest.NewRequest("GET", "/status?ref=app:v1", nil)
		r.RemoteAddr, r.Host = "10.0.0.1:4000", "mirror.example.com"
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		before, w := asked, httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != code || (asked > before) != (code == 200) {
			t.Errorf("%q: %d after asking %d times, want %d", site, w.Code, asked-before, code)
		}
	}
}

// slowLogin takes a while, as a hash does, and knows everybody.
type slowLogin struct{}

func (slowLogin) Authenticate(*http.Request, serve.Access) error {
	time.Sleep(100 * time.Millisecond)
	return nil
}

// Who is right may ask for more at once than there are tries.
func TestManyLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newGuard(slowLogin{}, slog.New(slog.DiscardHandler)).only(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
		answers := make(chan int)
		for range 3 * mostTries {
			go func() {
				r := httptest.NewRequest("POST", "/purge", nil)
				r.RemoteAddr = "10.0.0.1:4000"
				r.SetBasicAuth("me", "right")
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				answers <- w.Code
			}()
		}
		for range 3 * mostTries {
			if code := <-answers; code != http.StatusOK {
				t.Errorf("a right login: %d", code)
			}
		}
	})
}

// What costs many calls is not for a page of another origin either, though it changes nothing.
func TestCostlyReads(t *testing.T) {
	h := newGuard(nil, nil).only(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	for site, code := range map[string]int{"": 200, "none": 200, "same-origin": 200, "same-site": 403, "cross-site": 403} {
		r := httptest.NewRequest("GET", "/plan", nil)
		r.RemoteAddr, r.Host = "127.0.0.1:4000", "127.0.0.1:5001"
		if site != "" {
			r.Header.Set("Sec-Fetch-Site", site)
		}
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != code {
			t.Errorf("%q: %d, want %d", site, w.Code, code)
		}
	}
}
