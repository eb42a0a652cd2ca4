package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Shared has several replicas work off one queue: Handle returns nil only when the changes are done, however long that takes.
// Meanwhile the message is hidden from the others, again and again; it is deleted at the end. So whatever becomes of a
// replica, its messages come back: at once when it stops, after Hidden when it is killed. SQS hides a message for twelve
// hours at most; one that takes longer is begun elsewhere, too, which does no harm and some work twice.
type Shared struct {
	Hold   int           // messages at a time that are worked on: 16
	Hidden time.Duration // for how long at a time a message is hidden, in whole seconds; renewed after a third of it: 1 min
	// Stalled says of how many messages the work failed and waits for another attempt: they do not count as worked on, so
	// that they keep nobody from the others. nil: none.
	Stalled func() int
}

// maxHeld bounds how many messages a replica holds, those that stall included: SQS lets a queue have 120,000 in flight.
const maxHeld = 1000

// holding is the messages that one run holds.
type holding struct {
	q      *SQS
	hold   int
	hidden int32 // seconds
	wg     sync.WaitGroup
	ended  chan struct{} // gets one when a message is no longer held; full: one is waiting to be looked at

	mu   sync.Mutex
	held int
}

func newHolding(q *SQS) *holding {
	h := &holding{q: q, hold: q.o.Shared.Hold, hidden: int32(q.o.Shared.Hidden / time.Second), ended: make(chan struct{}, 1)}
	if h.hold <= 0 {
		h.hold = 16
	}
	if h.hidden <= 0 {
		h.hidden = 60
	}
	return h
}

// wait returns when nothing is held any more.
func (h *holding) wait() { h.wg.Wait() }

// room is how many more messages may be worked on.
func (h *holding) room() int {
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	busy := held
	if f := h.q.o.Shared.Stalled; f != nil {
		busy -= f()
	}
	return min(h.hold-busy, maxHeld-held, maxReceive)
}

// poll receives what there is room for, and has it worked on.
func (h *holding) poll(ctx context.Context) error {
	room := h.room()
	for ; room <= 0; room = h.room() {
		select {
		case <-h.ended:
		case <-time.After(time.Second): // work may have stalled
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	messages, err := h.q.receive(ctx, room, h.hidden)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.held += len(messages)
	h.mu.Unlock()
	for _, m := range messages {
		h.wg.Go(func() {
			h.work(ctx, m)
			h.mu.Lock()
			h.held--
			h.mu.Unlock()
			select {
			case h.ended <- struct{}{}:
			default:
			}
		})
	}
	return nil
}

func (h *holding) work(ctx context.Context, m types.Message) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(time.Duration(h.hidden) * time.Second / 3)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				h.hide(ctx, m, h.hidden)
			case <-over:
				return
			}
		}
	})
	err := h.q.in.take(ctx, []byte(aws.ToString(m.Body)))
	close(over)
	wg.Wait()
	switch {
	case err == nil:
		err = h.q.delete(ctx, m)
	case ctx.Err() != nil:
		h.hide(context.WithoutCancel(ctx), m, 0) // another replica may have it now
		return
	}
	if err != nil { // it comes again, here or elsewhere
		h.q.o.Logger.WarnContext(ctx, "event queue", "error", err)
	}
}

// hide has nobody else get the message for some seconds. When that fails the worst is that it is worked on twice.
func (h *holding) hide(ctx context.Context, m types.Message, seconds int32) {
	tctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err := h.q.o.Client.ChangeMessageVisibility(tctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: &h.q.o.QueueURL,
		ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds})
	if err != nil && ctx.Err() == nil {
		h.q.polls.WithLabelValues("hide").Inc()
		h.q.o.Logger.WarnContext(ctx, "event queue", "error", fmt.Errorf("hide: %w", err))
	}
}
