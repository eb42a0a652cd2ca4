package events

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Answers are given within answerTime, for an EventBridge API destination waits 5 s; at most maxAtOnce messages are held.
const (
	answerTime = 4 * time.Second
	maxAtOnce  = 64
)

// WebhookOptions of NewWebhook. Name, TokenFile and Handle are needed.
type WebhookOptions struct {
	Mirror, Name string // in metrics: whom messages are for, and where they come from
	// TokenFile holds the token that senders show: its first line. It is read again when it changes.
	TokenFile  string
	Handle     Handle       // called by many goroutines; the sender is told to try again unless it returned nil in time
	DeadLetter DeadLetter   // nil: logged at level error, cut to 2 KiB
	Logger     *slog.Logger // nil: none
}

// Webhook is an http.Handler that receives events by POST: one message to a request, as EventBridge's API destinations and
// Distribution's notification endpoints send them. The sender shows the token as "Authorization: Bearer TOKEN" or as
// "X-Api-Key: TOKEN". The answers:
//
//	202  the jobs, or the message as a dead letter, are durable; or there was nothing to do
//	401  no token, or a wrong one: nothing was read
//	503  nothing is promised: send it again (both senders do)
//
// The server in front of it bounds the time that headers and body take.
type Webhook struct {
	o       WebhookOptions
	in      *intake
	token   *token
	busy    chan struct{}
	refused prometheus.Counter
}

// NewWebhook reads the token; one that is absent or shorter than 16 characters is an error.
func NewWebhook(o WebhookOptions) (*Webhook, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t, err := newToken(o.TokenFile, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Webhook{o: o, in: newIntake(o.Mirror, o.Name, o.Handle, o.DeadLetter, o.Logger), token: t, busy: make(chan struct{}, maxAtOnce),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ecr_mirror_webhook_unauthorized_total", ConstLabels: prometheus.Labels{"mirror": o.Mirror, "from": o.Name},
			Help: "Requests to the webhook without the right token.",
		})}, nil
}

// Collectors returns the webhook's metrics. The caller registers them.
func (h *Webhook) Collectors() []prometheus.Collector { return append(h.in.collectors(), h.refused) }

// ServeHTTP implements http.Handler.
func (h *Webhook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// Another request of this connection may have left a deadline behind.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime + time.Second)) // not supported: the server has its own
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST")
		http.Error(w, "this is a webhook: POST an event", http.StatusMethodNotAllowed)
		return
	}
	if !h.token.shownBy(r) {
		h.refused.Inc()
		w.Header().Set("WWW-Authenticate", `Bearer realm="events"`)
		http.Error(w, "the token is missing or wrong", http.StatusUnauthorized)
		return
	}
	late := time.NewTimer(answerTime)
	defer late.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), answerTime)
	select {
	case h.busy <- struct{}{}:
	default:
		cancel()
		h.again(w, "too many events at once")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, MaxSize+1))
	if err != nil {
		<-h.busy
		cancel()
		h.again(w, "the body ends early")
		return
	}
	// Detached: a disk that hangs must not hold the answer, and what was begun goes on when the sender leaves.
	taken := make(chan error, 1)
	go func() {
		defer func() { <-h.busy; cancel() }()
		taken <- h.in.take(ctx, body)
	}()
	select {
	case err = <-taken:
	case <-late.C:
		err = context.DeadlineExceeded
	}
	if err != nil {
		h.o.Logger.WarnContext(r.Context(), "event not taken", "from", h.o.Name, "error", err)
		h.again(w, "the event could not be written down")
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (h *Webhook) again(w http.ResponseWriter, why string) {
	w.Header().Set("Retry-After", "5")
	http.Error(w, why, http.StatusServiceUnavailable)
}
