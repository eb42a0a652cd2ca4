package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// exchange is one request with what the access log says of it. The ResponseWriter is the server's own, never wrapped:
// a wrapper would hide its ReadFrom, which is sendfile.
type exchange struct {
	h     *Handler
	w     http.ResponseWriter
	rc    *http.ResponseController
	r     *http.Request
	ctx   context.Context
	trace *registry.Trace
	begun time.Time

	req    wire.Request
	mirror *Mirror
	named  string // host by which the client named the mirror; "" if it did not
	repo   string

	status int
	headed time.Duration // from the request to the headers of what was asked for; 0: there were none
	bytes  int64         // of the body
	err    error         // why the answer is not what was asked for, or was cut
	left   bool          // the client went away or did not read
}

func newExchange(h *Handler, w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{h: h, w: w, rc: http.NewResponseController(w), r: r, trace: new(registry.Trace), begun: time.Now()}
	x.ctx = registry.WithTrace(r.Context(), x.trace)
	return x
}

var errNoAnswer = &registry.Error{Class: registry.Unavailable, RetryAfter: time.Second, Err: errors.New("no answer in time")}

// within runs ask, which has limit to return. The context that ask gets lives on after it returned, until end is called: a
// body that was opened is read under it.
func within[T any](ctx context.Context, limit time.Duration, ask func(context.Context) (T, error)) (v T, end func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	clock := time.AfterFunc(limit, func() { cancel(errNoAnswer) })
	v, err = ask(ctx)
	clock.Stop()
	if err != nil && context.Cause(ctx) == error(errNoAnswer) && registry.ClassOf(err) == registry.Unavailable {
		err = errNoAnswer
	}
	return v, func() { cancel(nil) }, err
}

// patience is for how much longer the client of x is kept waiting for headers.
func (x *exchange) patience() time.Duration { return x.limit() - time.Since(x.begun) }

// limit is how long the client of x is kept waiting for headers in all: who it is has to be known first. A continued download has no next host to go to, and is
// waited for as long as containerd (from 2.3 on) waits for headers, 30 s, less some slack.
func (x *exchange) limit() time.Duration {
	switch {
	case x.continues():
		return 25 * time.Second
	case x.req.NS != "" || x.req.Endpoint == wire.Blob && x.r.Header.Get("Range") != "":
		return min(x.h.opts.HeaderTimeout, x.h.opts.DirectTimeout)
	}
	return x.h.opts.DirectTimeout
}

// continues reports whether the request is for a later part of a blob: a client that asks for one has begun elsewhere in it.
func (x *exchange) continues() bool {
	if x.req.Endpoint != wire.Blob || x.r.Method != http.MethodGet {
		return false
	}
	r, partial, err := wire.ParseRange(x.r.Header.Get("Range"))
	return err == nil && partial && r.Offset > 0
}

// extendDeadline gives the client time to take what is written next. Servers without deadlines, as in tests, are fine.
func (x *exchange) extendDeadline() { _ = x.rc.SetWriteDeadline(time.Now().Add(x.h.opts.WriteTimeout)) }

// begin writes the headers of a body of n bytes.
func (x *exchange) begin(status int, contentType string, n int64) {
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	if age := x.trace.Stale(); age > 0 {
		h.Set("X-Ecr-Mirror-Tag-Age", strconv.FormatInt(int64(age.Seconds()), 10))
	}
	x.status, x.headed = status, time.Since(x.begun)
	x.w.WriteHeader(status)
}

// write answers 200 with body, or with its headers alone.
func (x *exchange) write(contentType string, body []byte) error {
	x.begin(http.StatusOK, contentType, int64(len(body)))
	if x.r.Method == http.MethodHead {
		return nil
	}
	n, err := x.w.Write(body)
	x.bytes = int64(n)
	if err != nil {
		x.cut(err, true)
	}
	return nil
}

// fail answers with an error; nothing has been written yet. A later part of a blob is not refused because of what may pass:
// its client would fail the pull, while a connection that closes has it ask again, here and at its next host.
func (x *exchange) fail(err error) {
	status := wire.Status(err)
	if x.status != 0 {
		status = x.status
	}
	if status >= 500 && x.continues() {
		x.cut(err, x.r.Context().Err() != nil)
	}
	x.err, x.status = err, status
	wire.WriteError(x.w, x.r, status, err)
}

// cut ends the response early: the connection closes, and what the client has is not taken for complete.
func (x *exchange) cut(err error, left bool) {
	x.err, x.left = err, left
	panic(http.ErrAbortHandler)
}

// done logs and counts, after panics too.
func (x *exchange) done() {
	class := registry.Result(x.err)
	if x.left || x.err != nil && x.r.Context().Err() != nil {
		class = "client_left"
	}
	mirror := ""
	if x.mirror != nil {
		mirror = x.mirror.Name
	}
	x.h.metrics.requests.WithLabelValues(mirror, x.req.Endpoint.String(), x.trace.Tier(), class).Inc()
	x.h.metrics.bytes.WithLabelValues(mirror, x.trace.Tier()).Add(float64(x.bytes))
	if x.headed > 0 {
		x.h.metrics.first.WithLabelValues(x.req.Endpoint.String(), x.trace.Tier()).Observe(x.headed.Seconds())
	}
	if x.trace.Stale() > 0 {
		x.h.metrics.stale.WithLabelValues(mirror).Inc()
	}
	if x.h.opts.Answered != nil {
		x.h.opts.Answered(x.r.Context(), Answer{Endpoint: x.req.Endpoint.String(), Mirror: mirror, Repo: x.repo, Object: x.req.Tag + x.req.Digest.String(),
			Tier: x.trace.Tier(), Status: x.status, Bytes: x.bytes, Class: class, Err: x.err})
	}
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("method", x.r.Method), slog.String("endpoint", x.req.Endpoint.String()), slog.String("repo", x.repo),
		slog.String("object", x.req.Tag+x.req.Digest.String()), slog.String("tier", x.trace.Tier()), slog.Int("status", x.status),
		slog.Int64("bytes", x.bytes), slog.Duration("duration", time.Since(x.begun))}
	if x.err != nil {
		attrs = append(attrs, slog.String("class", class), slog.String("error", x.err.Error()))
		if x.status >= 500 {
			level = slog.LevelWarn
		}
	}
	x.h.opts.Logger.LogAttrs(x.r.Context(), level, "request", attrs...)
}
