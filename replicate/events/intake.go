package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Handle makes the changes of one message durable; the message is acknowledged only after it returned nil. It must be
// idempotent. An error that is ErrForeign or ErrUnwanted says that all that could be done is done, and the message is a dead
// letter, or nothing.
type Handle func(ctx context.Context, changes []registry.Change) error

// DeadLetter keeps a message that did not become a change, and why: ErrUnknown, ErrMalformed or ErrForeign, wrapped. The
// message is acknowledged after it returned nil.
type DeadLetter func(ctx context.Context, body []byte, reason error) error

// intake is what becomes of a message, wherever it comes from.
type intake struct {
	handle     Handle
	deadLetter DeadLetter
	log        *slog.Logger
	messages   *prometheus.CounterVec
	age        prometheus.Histogram
	last       prometheus.Gauge
}

// newIntake's mirror and from are the metrics' names of whom messages are for and where they come from.
func newIntake(mirror, from string, handle Handle, deadLetter DeadLetter, log *slog.Logger) *intake {
	labels := prometheus.Labels{"mirror": mirror, "from": from}
	in := &intake{handle: handle, deadLetter: deadLetter, log: log,
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_event_messages_total", ConstLabels: labels,
			Help: "Messages received, by outcome: handled, ignored, unwanted, unknown, malformed, foreign, failed (left with the sender).",
		}, []string{"outcome"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ecr_mirror_event_age_seconds", ConstLabels: labels,
			Help: "From what an event tells of to its handling here.", Buckets: prometheus.ExponentialBuckets(0.25, 4, 9),
		}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ecr_mirror_event_last_message_timestamp_seconds", ConstLabels: labels,
			Help: "When the last message came, whatever became of it; 0 before the first.",
		}),
	}
	for _, outcome := range []string{"handled", "ignored", "unwanted", "unknown", "malformed", "foreign", "failed"} {
		in.messages.WithLabelValues(outcome)
	}
	return in
}

func (in *intake) collectors() []prometheus.Collector {
	return []prometheus.Collector{in.messages, in.age, in.last}
}

// take returns nil when the message may be acknowledged: what it asks for, or it itself, is durable.
func (in *intake) take(ctx context.Context, body []byte) error {
	in.last.SetToCurrentTime()
	outcome, err := in.do(ctx, body)
	if err != nil {
		outcome = "failed"
	}
	in.messages.WithLabelValues(outcome).Inc()
	return err
}

func (in *intake) do(ctx context.Context, body []byte) (outcome string, err error) {
	changes, reason, err := deliver(ctx, body, in.handle)
	switch {
	case err != nil:
		return "", err
	case reason == nil:
		for _, c := range changes {
			in.age.Observe(max(0, time.Since(c.At).Seconds()))
		}
		return "handled", nil
	case errors.Is(reason, ErrIgnored), errors.Is(reason, ErrUnwanted):
		in.log.DebugContext(ctx, "event ignored", "why", reason)
	case in.deadLetter != nil:
		if err := in.deadLetter(ctx, body, reason); err != nil {
			return "", fmt.Errorf("dead letter: %w", err)
		}
	default:
		in.log.ErrorContext(ctx, "event not understood", "why", reason, "body", fmt.Sprintf("%.2048q", body))
	}
	return reasonOf(reason), nil
}

// deliver hands to handle what of a message can be handled. reason is why that is not all of it; err is handle's.
func deliver(ctx context.Context, body []byte, handle Handle) (changes []registry.Change, reason, err error) {
	changes, reason = Decode(body)
	if len(changes) == 0 {
		return nil, reason, nil
	}
	switch err := handle(ctx, changes); {
	case errors.Is(err, ErrForeign):
		reason = errors.Join(reason, err)
	case errors.Is(err, ErrUnwanted):
		if reason == nil { // else the message is a dead letter for that
			reason = err
		}
	case err != nil:
		return nil, nil, fmt.Errorf("handle: %w", err)
	}
	return changes, reason, nil
}

// Retry has handle take a dead letter again: the configuration, or this program, may have learnt to. nil: the letter can go.
func Retry(ctx context.Context, body []byte, handle Handle) error {
	_, reason, err := deliver(ctx, body, handle)
	if err == nil && !errors.Is(reason, ErrIgnored) && !errors.Is(reason, ErrUnwanted) {
		err = reason
	}
	return err
}
