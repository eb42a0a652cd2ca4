package main

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminHandler answers /metrics, /healthz (the process runs), /readyz (it can serve; else why not) and pages, by pattern. ready
// returns the reasons why not.
func adminHandler(reg *prometheus.Registry, ready func() []string, pages map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, ready()) })
	for pattern, h := range pages {
		mux.Handle(pattern, h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := timely{w, http.NewResponseController(w)}
		mux.ServeHTTP(out, r)
		out.within() // of what is buffered; the server lifts it before the next request
	})
}

// answerTime is for one write of an answer. Between them there may be minutes: a plan says what it finds when it finds it.
const answerTime = time.Minute

// timely is an answer whose reader is cut when it stops reading: it must not keep for ever one of the few slots of a page.
type timely struct {
	http.ResponseWriter
	conn *http.ResponseController
}

func (w timely) Write(b []byte) (int, error) {
	w.within()
	return w.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController calls.
func (w timely) FlushError() error {
	w.within()
	return w.conn.Flush()
}

func (w timely) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// within sets the deadline. What passes between two writes does no harm (HTTP/1.1); a writer without deadlines has its own limits.
func (w timely) within() { _ = w.conn.SetWriteDeadline(time.Now().Add(answerTime)) }

func answer(w http.ResponseWriter, problems []string) {
	w.Header().Set("Content-Type", "application/json")
	if len(problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": len(problems) == 0, "problems": append([]string{}, problems...)}) // the client is gone: nothing to do
}
