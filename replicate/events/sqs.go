package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Queue is the part of an SQS client that is used; *sqs.Client has it. It needs sqs:ReceiveMessage and sqs:DeleteMessage.
type Queue interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
}

// Options of NewSQS. Client, QueueURL and Handle are needed.
type Options struct {
	Client   Queue
	QueueURL string
	// Handle makes the changes of one message durable. The message is deleted only after it returned nil; else the queue
	// delivers it again when its visibility timeout is over. It is called by one goroutine, and must be idempotent.
	Handle func(ctx context.Context, changes []registry.Change) error
	// DeadLetter keeps a message that is unknown or malformed, and why; nil: it is logged at level error, cut to 2 KiB. The
	// message is deleted after it returned nil.
	DeadLetter func(ctx context.Context, body []byte, reason error) error
	Logger     *slog.Logger  // nil: none
	Wait       time.Duration // of a long poll, at most 20 s; 0: 20 s
	MaxBackoff time.Duration // between failing polls; 0: 1 min
}

// SQS receives changes from one queue. Several replicas may share a queue.
type SQS struct {
	o        Options
	messages *prometheus.CounterVec
	polls    *prometheus.CounterVec
	age      prometheus.Histogram
}

// NewSQS returns a receiver; nothing happens before Run.
func NewSQS(o Options) *SQS {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Wait <= 0 || o.Wait > 20*time.Second {
		o.Wait = 20 * time.Second
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = time.Minute
	}
	labels := prometheus.Labels{"queue": o.QueueURL}
	return &SQS{o: o,
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_event_messages_total", ConstLabels: labels,
			Help: "Messages received, by outcome: handled, ignored, unknown, malformed, failed (left in the queue).",
		}, []string{"outcome"}),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_event_queue_errors_total", ConstLabels: labels,
			Help: "Calls to SQS that failed, by call. A message whose deletion failed comes again.",
		}, []string{"call"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "ecr_mirror_event_age_seconds", ConstLabels: labels,
			Help: "From what an event tells of to its handling here.", Buckets: prometheus.ExponentialBuckets(0.25, 4, 9),
		}),
	}
}

// Collectors returns the queue's metrics. The caller registers them.
func (q *SQS) Collectors() []prometheus.Collector {
	return []prometheus.Collector{q.messages, q.polls, q.age}
}

// Run receives until ctx ends, and returns nil then. It does not give up: a queue that cannot be reached is asked again after
// a growing delay. What was handled when ctx ended is still deleted.
func (q *SQS) Run(ctx context.Context) error {
	for failures := 0; ctx.Err() == nil; {
		err := q.poll(ctx)
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			break
		}
		d := q.delay(failures)
		failures++
		q.o.Logger.WarnContext(ctx, "event queue", "err", err, "again", d.Round(time.Millisecond))
		t := time.NewTimer(d)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return nil
}

// delay grows from 1 s and is jittered down to its half.
func (q *SQS) delay(failures int) time.Duration {
	d := min(time.Second<<min(failures, 16), q.o.MaxBackoff)
	return d/2 + rand.N(d/2+1)
}

// poll receives up to ten messages and deletes those that are done. An error means: not at once again.
func (q *SQS) poll(ctx context.Context) error {
	// The answer of a long poll comes late by design; a connection that died meanwhile must not hold it forever.
	rctx, cancel := context.WithTimeout(ctx, q.o.Wait+10*time.Second)
	defer cancel()
	out, err := q.o.Client.ReceiveMessage(rctx, &sqs.ReceiveMessageInput{QueueUrl: &q.o.QueueURL, MaxNumberOfMessages: 10,
		WaitTimeSeconds: int32(q.o.Wait / time.Second)})
	if err != nil {
		if ctx.Err() == nil {
			q.polls.WithLabelValues("receive").Inc()
		}
		return fmt.Errorf("receive: %w", err)
	}
	var done []types.DeleteMessageBatchRequestEntry
	var failed error
	for i, m := range out.Messages {
		if err := q.message(ctx, []byte(aws.ToString(m.Body))); err != nil {
			q.messages.WithLabelValues("failed").Inc()
			failed = errors.Join(failed, err)
			continue // the others may still succeed; this one comes again
		}
		done = append(done, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
	}
	return errors.Join(failed, q.delete(ctx, done))
}

// message returns nil when the message may be deleted.
func (q *SQS) message(ctx context.Context, body []byte) error {
	changes, err := Decode(body)
	switch {
	case err == nil:
		if err := q.o.Handle(ctx, changes); err != nil {
			return fmt.Errorf("handle: %w", err)
		}
		for _, c := range changes {
			q.age.Observe(max(0, time.Since(c.At).Seconds()))
		}
		q.messages.WithLabelValues("handled").Inc()
		return nil
	case errors.Is(err, ErrIgnored):
		q.o.Logger.DebugContext(ctx, "event ignored", "why", err)
	case q.o.DeadLetter != nil:
		if derr := q.o.DeadLetter(ctx, body, err); derr != nil {
			return fmt.Errorf("dead letter: %w", derr)
		}
	default:
		q.o.Logger.ErrorContext(ctx, "event not understood", "why", err, "body", fmt.Sprintf("%.2048q", body))
	}
	q.messages.WithLabelValues(reasonOf(err)).Inc()
	return nil
}

// delete removes what is done, even while stopping: else all of it comes again.
func (q *SQS) delete(ctx context.Context, done []types.DeleteMessageBatchRequestEntry) error {
	if len(done) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	out, err := q.o.Client.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: &q.o.QueueURL, Entries: done})
	if err != nil {
		q.polls.WithLabelValues("delete").Inc()
		return fmt.Errorf("delete: %w", err)
	}
	for _, f := range out.Failed {
		q.polls.WithLabelValues("delete").Inc()
		err = errors.Join(err, fmt.Errorf("delete: %s: %s", aws.ToString(f.Code), aws.ToString(f.Message)))
	}
	return err
}
