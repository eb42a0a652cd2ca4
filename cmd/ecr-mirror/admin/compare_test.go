package admin

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Plans are made one at a time, and for this host alone.
func TestCompareRefuses(t *testing.T) {
	synced := false
	making, made := make(chan struct{}), make(chan struct{})
	h := New(Options{
		Metrics: prometheus.NewRegistry(),
		Plan: func(context.Context, bool, func(any) error) {
			close(making)
			<-made
		},
		Sync:     func(_ context.Context, force bool, line func(any) error) { synced = line(force) == nil },
		Progress: func() (any, bool) { return "far", synced },
	})
	ask := func(pattern, from, origin string) (int, string) {
		method, path, _ := strings.Cut(pattern, " ")
		req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		req.RemoteAddr, req.Host = from, "127.0.0.1:5001"
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		res := httptest.NewRecorder()
		h.ServeHTTP(res, req)
		return res.Code, res.Body.String()
	}
	const here = "127.0.0.1:40000"
	if got, _ := ask("GET /sync", here, ""); got != http.StatusNotFound {
		t.Errorf("progress of nothing: %d", got)
	}
	for _, pattern := range []string{"GET /plan", "POST /sync", "GET /sync"} {
		if got, _ := ask(pattern, "192.0.2.1:40000", ""); got != http.StatusForbidden {
			t.Errorf("%s from elsewhere: %d", pattern, got)
		}
	}
	if got, _ := ask("POST /sync", here, "https://evil.example"); got != http.StatusForbidden {
		t.Errorf("from a web page: %d", got)
	}
	ended := make(chan int)
	go func() {
		code, _ := ask("GET /plan", here, "")
		ended <- code
	}()
	<-making
	for _, pattern := range []string{"GET /plan", "POST /sync"} {
		if got, _ := ask(pattern, here, ""); got != http.StatusServiceUnavailable {
			t.Errorf("%s while another plan is made: %d", pattern, got)
		}
	}
	close(made)
	if got := <-ended; got != http.StatusOK {
		t.Errorf("plan: %d", got)
	}
	if got, body := ask("POST /sync?force=true", here, ""); got != http.StatusOK || body != "true\n" {
		t.Errorf("sync: %d %q", got, body)
	}
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/sync", strings.NewReader("force=true"))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.RemoteAddr, req.Host = here, "127.0.0.1:5001"
	res := httptest.NewRecorder()
	h.ServeHTTP(res, req)
	if n, _ := io.Copy(io.Discard, req.Body); n != int64(len("force=true")) || res.Body.String() != "false\n" {
		t.Errorf("a body is read: %d bytes left, %q", n, res.Body)
	}
	if got, body := ask("GET /sync", here, ""); got != http.StatusOK || body != "\"far\"\n" {
		t.Errorf("progress: %d %q", got, body)
	}
}
