package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/prometheus/client_golang/prometheus"
)

// Queue is the part of an SQS client that is used; *sqs.Client has it. It needs sqs:ReceiveMessage, sqs:DeleteMessage and, to
// share a queue, sqs:ChangeMessageVisibility.
type Queue interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
	DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error)
}

// Options of NewSQS. Client, QueueURL and Handle are needed.
type Options struct {
	Mirror   string // in metrics
	Client   Queue
	QueueURL string
	// Handle is called by several goroutines. The message is deleted after it returned nil; else the queue delivers it again
	// when its visibility timeout is over.
	Handle     Handle
	Shared     *Shared       // nil: Handle returns once the changes are durable, not when they are done
	DeadLetter DeadLetter    // nil: logged at level error, cut to 2 KiB
	Logger     *slog.Logger  // nil: none
	Wait       time.Duration // of a long poll, at most 20 s; 0: 20 s
	MaxBackoff time.Duration // between failing polls; 0: 1 min
}

// SQS receives changes from one queue.
type SQS struct {
	o     Options
	in    *intake
	polls *prometheus.CounterVec
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
	q := &SQS{o: o, in: newIntake(o.Mirror, o.QueueURL, o.Handle, o.DeadLetter, o.Logger),
		polls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ecr_mirror_event_queue_errors_total", ConstLabels: prometheus.Labels{"mirror": o.Mirror, "from": o.QueueURL},
			Help: "Calls to SQS that failed, by call. A message whose deletion failed comes again.",
		}, []string{"call"}),
	}
	for _, call := range []string{"receive", "delete", "hide"} {
		q.polls.WithLabelValues(call)
	}
	return q
}

// Collectors returns the queue's metrics. The caller registers them.
func (q *SQS) Collectors() []prometheus.Collector {
	return append(q.in.collectors(), q.polls)
}

// Run receives until ctx ends, and returns nil then. It does not give up: a queue that cannot be reached is asked again after
// a growing delay. What was handled when ctx ended is still deleted.
func (q *SQS) Run(ctx context.Context) error {
	poll := q.poll
	if q.o.Shared != nil {
		h := newHolding(q)
		defer h.wait()
		poll = h.poll
	}
	for failures := 0; ctx.Err() == nil; {
		err := poll(ctx)
		if err == nil {
			failures = 0
			continue
		}
		if ctx.Err() != nil {
			break
		}
		d := q.delay(failures)
		failures++
		q.o.Logger.WarnContext(ctx, "event queue", "error", err, "again", d.Round(time.Millisecond))
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
	messages, err := q.receive(ctx, maxReceive, 0)
	if err != nil {
		return err
	}
	errs := make([]error, len(messages))
	var wg sync.WaitGroup
	for i, m := range messages { // at once: what they write down goes to disk together
		wg.Go(func() { errs[i] = q.in.take(ctx, []byte(aws.ToString(m.Body))) })
	}
	wg.Wait()
	var done []types.Message
	for i, m := range messages {
		if errs[i] == nil { // else it comes again
			done = append(done, m)
		}
	}
	return errors.Join(append(errs, q.delete(ctx, done...))...)
}

// maxReceive is how many messages SQS gives at a time.
const maxReceive = 10

// receive waits for messages. hide is for how many seconds nobody else gets them; 0: as the queue has it.
func (q *SQS) receive(ctx context.Context, most int, hide int32) ([]types.Message, error) {
	// The answer of a long poll comes late by design; a connection that died meanwhile must not hold it forever.
	rctx, cancel := context.WithTimeout(ctx, q.o.Wait+10*time.Second)
	defer cancel()
	out, err := q.o.Client.ReceiveMessage(rctx, &sqs.ReceiveMessageInput{QueueUrl: &q.o.QueueURL, MaxNumberOfMessages: int32(most),
		VisibilityTimeout: hide, WaitTimeSeconds: int32(q.o.Wait / time.Second)})
	if err != nil {
		if ctx.Err() == nil {
			q.polls.WithLabelValues("receive").Inc()
		}
		return nil, fmt.Errorf("receive: %w", err)
	}
	return out.Messages, nil
}

// delete removes what is done, even while stopping: else all of it comes again.
func (q *SQS) delete(ctx context.Context, messages ...types.Message) error {
	if len(messages) == 0 {
		return nil
	}
	var done []types.DeleteMessageBatchRequestEntry
	for i, m := range messages {
		done = append(done, types.DeleteMessageBatchRequestEntry{Id: aws.String(fmt.Sprint(i)), ReceiptHandle: m.ReceiptHandle})
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
