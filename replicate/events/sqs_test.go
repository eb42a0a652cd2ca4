package events_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// queue is a queue in memory with a visibility timeout; its calls can be made to fail, before or after they took effect.
type queue struct {
	mu       sync.Mutex
	messages map[string]string // by receipt
	hidden   map[string]time.Time
	receives []time.Duration // when, since start
	start    time.Time
	fail     func(call string, n int) (apply bool, err error) // nil: nothing fails
	n        map[string]int
}

func newQueue(bodies ...[]byte) *queue {
	q := &queue{messages: map[string]string{}, hidden: map[string]time.Time{}, n: map[string]int{}, start: time.Now()}
	for i, b := range bodies {
		q.messages[fmt.Sprintf("r%d", i)] = string(b)
	}
	return q
}

func (q *queue) fault(call string) (bool, error) {
	q.n[call]++
	if q.fail == nil {
		return true, nil
	}
	return q.fail(call, q.n[call])
}

func (q *queue) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	q.mu.Lock()
	q.receives = append(q.receives, time.Since(q.start))
	_, err := q.fault("receive")
	q.mu.Unlock()
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(time.Duration(in.WaitTimeSeconds) * time.Second)
	for {
		if out := q.visible(int(in.MaxNumberOfMessages), time.Duration(in.VisibilityTimeout)*time.Second); len(out) > 0 || !time.Now().Before(end) {
			return &sqs.ReceiveMessageOutput{Messages: out}, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (q *queue) visible(n int, hide time.Duration) (out []types.Message) {
	if hide == 0 {
		hide = 30 * time.Second
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range slices.Sorted(func(yield func(string) bool) {
		for k := range q.messages {
			if !yield(k) {
				return
			}
		}
	}) {
		if len(out) < n && time.Now().After(q.hidden[r]) {
			q.hidden[r] = time.Now().Add(hide)
			out = append(out, types.Message{Body: aws.String(q.messages[r]), ReceiptHandle: aws.String(r)})
		}
	}
	return out
}

func (q *queue) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	apply, err := q.fault("delete")
	for _, e := range in.Entries {
		if apply {
			delete(q.messages, *e.ReceiptHandle)
		}
	}
	return &sqs.DeleteMessageBatchOutput{}, err
}

func (q *queue) ChangeMessageVisibility(ctx context.Context, in *sqs.ChangeMessageVisibilityInput, _ ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	apply, err := q.fault("hide")
	if apply {
		q.hidden[*in.ReceiptHandle] = time.Now().Add(time.Duration(in.VisibilityTimeout)*time.Second - 1)
	}
	return &sqs.ChangeMessageVisibilityOutput{}, err
}

func (q *queue) left() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.messages)
}

func counted(t *testing.T, s *events.SQS, name string) map[string]float64 {
	t.Helper()
	return gathered(t, s.Collectors(), name)
}

// run runs a receiver on q for d.
func run(t *testing.T, s *events.SQS, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestEachMessageHasItsOutcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sample(t, "push"), sample(t, "scan"), []byte("{"), sample(t, "ec2"), sample(t, "delete"), sample(t, "sns"))
		var mu sync.Mutex
		var handled []registry.Op
		var dead []string
		s := events.NewSQS(events.Options{Client: q, QueueURL: "https://queue",
			Handle: func(_ context.Context, c []registry.Change) error {
				mu.Lock()
				defer mu.Unlock()
				handled = append(handled, c[0].Op)
				return nil
			},
			DeadLetter: func(_ context.Context, body []byte, reason error) error {
				mu.Lock()
				defer mu.Unlock()
				if !errors.Is(reason, events.ErrMalformed) && !errors.Is(reason, events.ErrUnknown) {
					t.Errorf("dead letter for %v", reason)
				}
				dead = append(dead, string(body))
				return nil
			}})
		run(t, s, time.Minute)
		slices.Sort(handled)
		slices.Sort(dead)
		if d := cmp.Diff([]registry.Op{registry.Push, registry.Push, registry.Delete}, handled); d != "" {
			t.Errorf("handled (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{"{", string(sample(t, "ec2"))}, dead); d != "" {
			t.Errorf("dead letters (-want +got):\n%s", d)
		}
		if q.left() != 0 || q.n["delete"] != 1 {
			t.Errorf("%d messages left, %d delete calls", q.left(), q.n["delete"])
		}
		want := map[string]float64{"handled": 3, "ignored": 1, "malformed": 1, "unknown": 1}
		if d := cmp.Diff(want, counted(t, s, "ecr_mirror_event_messages_total")); d != "" {
			t.Errorf("counters (-want +got):\n%s", d)
		}
	})
}

// What could not be made durable stays in the queue, alone, until it can.
func TestFailedMessageComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, keep := range map[string]bool{"handle": false, "dead letter": true} {
			q := newQueue(sample(t, "push"), sample(t, "delete"), []byte("{"))
			var mu sync.Mutex
			failures := 2
			flaky := func(hit bool) error {
				mu.Lock()
				defer mu.Unlock()
				if hit && failures > 0 {
					failures--
					return errors.New("disk full")
				}
				return nil
			}
			s := events.NewSQS(events.Options{Client: q,
				Handle: func(_ context.Context, c []registry.Change) error {
					return flaky(!keep && c[0].Op == registry.Push)
				},
				DeadLetter: func(context.Context, []byte, error) error { return flaky(keep) }})
			run(t, s, 20*time.Second)
			if q.left() != 1 {
				t.Errorf("%s: %d messages left after the first failure, want 1", name, q.left())
			}
			run(t, s, 3*time.Minute)
			if q.left() != 0 {
				t.Errorf("%s: %d messages left at the end", name, q.left())
			}
			if n := counted(t, s, "ecr_mirror_event_messages_total")["failed"]; n != 2 {
				t.Errorf("%s: %v failures counted", name, n)
			}
		}
	})
}

// A deletion that failed, whether or not it took effect, costs at most another delivery.
func TestDeleteFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for applied, wantHandled := range map[bool]int{true: 1, false: 2} {
			q := newQueue(sample(t, "push"))
			q.fail = func(call string, n int) (bool, error) {
				if call == "delete" && n == 1 {
					return applied, errors.New("connection reset")
				}
				return true, nil
			}
			handled := 0
			s := events.NewSQS(events.Options{Client: q, Handle: func(context.Context, []registry.Change) error { handled++; return nil }})
			run(t, s, 2*time.Minute)
			if handled != wantHandled || q.left() != 0 {
				t.Errorf("applied %v: handled %d times, want %d; %d left", applied, handled, wantHandled, q.left())
			}
			if n := counted(t, s, "ecr_mirror_event_queue_errors_total")["delete"]; n != 1 {
				t.Errorf("%v failed deletions counted", n)
			}
		}
	})
}

// A dead queue is asked ever more rarely, and as before when it is back.
func TestDeadQueueIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue()
		q.fail = func(_ string, n int) (bool, error) {
			if n <= 10 {
				return false, errors.New("no route to host")
			}
			return true, nil
		}
		s := events.NewSQS(events.Options{Client: q, Handle: func(context.Context, []registry.Change) error { return nil }, MaxBackoff: 30 * time.Second})
		run(t, s, 10*time.Minute)
		for i := 1; i <= 10; i++ {
			gap, most := q.receives[i]-q.receives[i-1], min(time.Second<<(i-1), 30*time.Second)
			if gap < most/2 || gap > most {
				t.Errorf("delay %d was %v, want %v to %v", i, gap, most/2, most)
			}
		}
		if gap := q.receives[12] - q.receives[11]; gap != 20*time.Second {
			t.Errorf("long poll of %v", gap)
		}
	})
}

// When it stops, what was handled is deleted and what was not is left.
func TestStopDeletesWhatIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(sample(t, "push"), sample(t, "delete"))
		ctx, cancel := context.WithCancel(t.Context())
		s := events.NewSQS(events.Options{Client: q, Handle: func(ctx context.Context, c []registry.Change) error {
			if c[0].Op == registry.Push {
				cancel()
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
		if q.left() != 1 || q.n["receive"] != 1 {
			t.Errorf("%d left after %d polls", q.left(), q.n["receive"])
		}
	})
}
