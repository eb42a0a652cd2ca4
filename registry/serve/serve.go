// Package serve is the HTTP front: the pull and content discovery parts of the OCI distribution protocol over any
// registry.Reader. It does not know that there is a cache behind it.
//
// What it promises clients, beyond the specification:
//   - a request that nobody answers in time gets 503 early enough for the client to go to its next host;
//   - a response that began is finished with the right bytes or cut (an early FIN): nothing but content follows headers;
//   - a range that continues a download is not refused for load, since clients pin a download to its first host;
//   - never 304, never compressed, never 429: each makes some client fail a pull that its next host could have served.
//
// # Limitations
//
// Pushing, deleting, the catalog and several ranges in one request are refused. A page of tags costs the Lister a whole
// listing, of which sixteen are made at once. Referrers come in one page; a manifest with more than 10,000 of them is refused.
package serve

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Mirror is one upstream registry as clients know it.
type Mirror struct {
	Name   string   // in metrics; the first of Names, if it is empty
	Names  []string // registry hosts, with their port if they have one, whose pulls it answers; the first is where to push
	Reader registry.Reader
	Lister registry.Lister // nil: tags/list and referrers answer 405
	// Locator, if there is one, knows the URLs of blobs that clients may be sent to instead of being given the bytes.
	Locator registry.Locator
	Auth    Authenticator // a pointer, which mirrors may share; nil: everybody may read everything
}

// Options are what New needs. Zero values work, with the defaults given.
type Options struct {
	Mirrors       []Mirror      // the first also answers requests that name no registry
	Logger        *slog.Logger  // nil: no access log
	HeaderTimeout time.Duration // wait for an upstream's answer where the client has a next host: with ns or a Range; 2.5s
	DirectTimeout time.Duration // the same for a direct reference, which has no next host; 10s
	MaxConcurrent int           // requests served at once; those that continue a download come on top; 4096
	MaxPerClient  int           // the same for one client address, or IPv6 /64; 0: no bound of its own
	// Answered is told of every request when it has been answered; nil: nobody is.
	Answered     func(context.Context, Answer)
	WriteTimeout time.Duration // for a client to take 1 MiB before it is given up; 2m
}

// Answer is what became of a request.
type Answer struct {
	Endpoint, Mirror, Repo string // Mirror and Repo are "" where the request names none that there is
	Object                 string // the tag or digest asked for
	Tier                   string // that answered; "" if none did
	Status                 int
	Bytes                  int64  // of the body
	Class                  string // ok, client_left, or the class of the error
	Err                    error
}

// Handler implements http.Handler. The server in front of it sets ReadHeaderTimeout, IdleTimeout and MaxHeaderBytes; its
// WriteTimeout stays 0, for the Handler moves the deadline on as a client makes progress.
type Handler struct {
	opts     Options
	byName   map[string]*Mirror
	admit    *admission
	listings chan struct{} // one of which is taken for each that is being made
	metrics  metrics
	buffers  sync.Pool
}

// New returns a Handler.
func New(o Options) *Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&o.HeaderTimeout, 2500*time.Millisecond)
	or(&o.DirectTimeout, 10*time.Second)
	or(&o.WriteTimeout, 2*time.Minute)
	if o.MaxConcurrent == 0 {
		o.MaxConcurrent = 4096
	}
	h := &Handler{opts: o, byName: make(map[string]*Mirror), admit: &admission{total: o.MaxConcurrent, each: o.MaxPerClient, of: make(map[netip.Addr]int)},
		listings: make(chan struct{}, maxListings), metrics: newMetrics()}
	h.buffers.New = func() any { b := make([]byte, bufferSize); return &b }
	for i := range o.Mirrors {
		m := &h.opts.Mirrors[i]
		if m.Name == "" && len(m.Names) > 0 {
			m.Name = m.Names[0]
		}
		for _, name := range m.Names {
			if _, taken := h.byName[strings.ToLower(name)]; !taken {
				h.byName[strings.ToLower(name)] = m
			}
		}
	}
	return h
}

// Collectors returns the Handler's metrics, to be registered once.
func (h *Handler) Collectors() []prometheus.Collector { return h.metrics.collectors() }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := newExchange(h, w, r)
	defer x.done()
	x.w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	x.w.Header().Set("X-Content-Type-Options", "nosniff")
	x.extendDeadline() // of its own for every request of a connection
	if err := x.serve(); err != nil {
		x.fail(err)
	}
}

// serve answers the request, or returns the error to answer it with while nothing has been written yet.
func (x *exchange) serve() (err error) {
	if x.req, err = wire.Parse(x.r.URL); err != nil {
		return err
	}
	x.mirror, x.named, x.repo, err = x.h.route(x.req)
	if err != nil && x.served() {
		return err
	}
	if err := x.authenticate(); err != nil {
		return x.refuse(err)
	}
	if !x.served() {
		x.w.Header().Set("Allow", "GET, HEAD")
		return x.unsupported()
	}
	if x.req.Endpoint == wire.Base {
		return x.write("application/json", []byte("{}"))
	}
	if x.mirror == nil {
		return unknownRegistry("")
	}
	if !x.continues() {
		leave, err := x.h.admit.enter(x.r.RemoteAddr)
		if err != nil {
			x.h.metrics.refused(err)
			return err
		}
		defer leave()
	}
	switch x.req.Endpoint {
	case wire.Manifest:
		return x.manifest()
	case wire.Blob:
		return x.blob()
	}
	if x.mirror.Lister == nil {
		return wire.Unsupported("this mirror does not list")
	}
	if x.req.Endpoint == wire.Tags {
		return x.tags()
	}
	return x.referrers()
}

// served reports whether the request is of a kind that is answered at all: a mirror is read-only.
func (x *exchange) served() bool {
	return (x.r.Method == http.MethodGet || x.r.Method == http.MethodHead) && x.req.Endpoint != wire.Uploads && x.req.Endpoint != wire.Catalog
}

// unsupported says where to push, to a client that the mirror lets in.
func (x *exchange) unsupported() error {
	if x.mirror == nil || len(x.mirror.Names) == 0 || x.repo == "" {
		return wire.Unsupported("this mirror is read-only: push to the registry that it mirrors")
	}
	return wire.Unsupported("this mirror is read-only: push to " + x.mirror.Names[0] + "/" + x.repo)
}
