package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// Options are what the admin port answers from. Only Metrics and Queue are required; what is left out is not answered.
type Options struct {
	Metrics prometheus.Gatherer
	Ready   func() []string // the reasons why the mirror cannot serve; nil: it always can
	Queue   *replicate.Queue
	// Status answers GET /status with what becomes JSON. Its query is as the package's user defines it.
	Status func(context.Context, url.Values) (any, error)
	// Plan and Sync answer GET /plan and POST /sync, Progress GET /sync: how far the last sync is, if there was one.
	Plan, Sync Compare
	Progress   func() (progress any, ok bool)
	// Purge are by the registry hosts that name them; "" is what a request that names none means.
	Purge map[string]Purger
	// Take are what events are given to that are tried again, by mirror.
	Take map[string]events.Handle
	// Login says who may change something, or ask what costs many calls; nil: who asks on this host, by a loopback address.
	Login serve.Authenticator
	// What only the page shows. Nil, or empty, is left out.
	Version string
	Mirrors []Mirror // the first is the one that is shown first
	Workers workers
	Store   func() storage.Report
	Prices  Prices
	Logger  *slog.Logger // nil: none
}

// New returns the admin port's handler. A reader of an answer who stops reading is cut after a minute.
func New(o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	mux, who := http.NewServeMux(), newGuard(o.Login, o.Logger)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		var problems []string
		if o.Ready != nil {
			problems = o.Ready()
		}
		answerHealth(w, problems)
	})
	if o.Status != nil {
		mux.Handle("GET /status", who.direct(newStatus(o.Status)))
	}
	if o.Plan != nil {
		newCompares(o).routes(mux, who)
	}
	dead := &deadLetters{queue: o.Queue, take: o.Take, log: o.Logger}
	mux.Handle("/dead-letters", who.only(dead.handler()))
	mux.Handle("/dead-letters/", who.only(dead.handler()))
	mux.Handle("POST /purge", who.only(purgeHandler(o.Purge, o.Logger)))
	newPage(o, who, dead).routes(mux)
	profiles(mux, who)
	return timely(mux)
}

func answerHealth(w http.ResponseWriter, problems []string) {
	w.Header().Set("Content-Type", "application/json")
	if len(problems) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"ok": len(problems) == 0, "problems": append([]string{}, problems...)}) // the client is gone: nothing to do
}

// answer answers with v as JSON, or with err.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(statusOf(err))
		v = map[string]string{"error": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nothing to do
}

func statusOf(err error) int {
	switch registry.ClassOf(err) {
	case registry.NotFound:
		return http.StatusNotFound
	case registry.Invalid:
		return http.StatusBadRequest
	case registry.Conflict:
		return http.StatusConflict
	case registry.Unavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}
