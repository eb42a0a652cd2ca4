package ecrtest

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"time"
)

type queueID struct {
	place
	name string
}

// queue is an SQS standard queue: at least once, in no promised order.
type queue struct {
	id  queueID
	now func() time.Time

	mu       sync.Mutex
	arrived  chan struct{} // closed and replaced when a message arrives
	messages []*message
	attrs    map[string]string
	tags     map[string]string
	dead     func(target string, body string) // delivers to the queue that the ARN target names
}

type message struct {
	id, body  string
	handle    string // of the latest receive
	sent      time.Time
	visibleAt time.Time
	received  int
	first     time.Time
}

// queueLocked returns a queue, created when new. The caller holds e.mu.
func (e *Emulator) queueLocked(id queueID) *queue {
	q := e.queues[id]
	if q == nil {
		q = &queue{id: id, now: e.opt.Clock, arrived: make(chan struct{}), attrs: map[string]string{"VisibilityTimeout": "30"}, tags: map[string]string{}}
		q.dead = func(arn, body string) {
			if to, ok := parseQueueARN(arn); ok {
				e.queue(to).send(body, 0)
			}
		}
		e.queues[id] = q
	}
	return q
}

func (e *Emulator) queue(id queueID) *queue {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.queueLocked(id)
}

// SendMessage puts body into a queue, which is created when it is new: an event from somewhere else.
func (e *Emulator) SendMessage(account, region, queueName, body string) {
	e.queue(queueID{e.Registry(account, region).place, queueName}).send(body, 0)
}

// QueueLen returns how many messages a queue holds, and how many of them are in flight.
func (e *Emulator) QueueLen(account, region, queueName string) (all, inFlight int) {
	q := e.queue(queueID{e.Registry(account, region).place, queueName})
	visible, hidden, delayed := q.count()
	return visible + hidden + delayed, hidden
}

// QueueURL is the URL of a queue of a started emulator. Regions share a listener: the caller's signature says which it means.
func (e *Emulator) QueueURL(account, region, queueName string) string {
	return e.ControlURL() + "/" + account + "/" + queueName
}

func md5Hex(s string) string {
	h := md5.Sum([]byte(s)) // SQS's choice; the SDK checks it
	return hex.EncodeToString(h[:])
}

func (q *queue) send(body string, delay time.Duration) *message {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &message{id: uuid(), body: body, sent: q.now(), visibleAt: q.now().Add(delay)}
	q.messages = append(q.messages, m)
	q.wake()
	return m
}

// wake lets waiting receivers look again. The caller holds q.mu.
func (q *queue) wake() {
	close(q.arrived)
	q.arrived = make(chan struct{})
}

// poll is how often a waiting receiver looks for messages that became visible: their time comes by a clock that a test may
// move by hand.
const poll = 20 * time.Millisecond

// receive returns up to n messages, hidden for timeout (negative: the queue's own), waiting up to wait for the first.
func (q *queue) receive(ctx context.Context, n int, timeout, wait time.Duration) []*message {
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		got, arrived := q.take(n, timeout)
		if len(got) > 0 || wait <= 0 || ctx.Err() != nil {
			return got
		}
		select {
		case <-arrived:
		case <-tick.C:
		case <-deadline.C:
			wait = 0
		case <-ctx.Done():
			return nil
		}
	}
}

func (q *queue) take(n int, timeout time.Duration) (got []*message, arrived <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if timeout < 0 {
		timeout = time.Duration(atoi64(q.attrs["VisibilityTimeout"])) * time.Second
	}
	var redrive struct {
		Target string      `json:"deadLetterTargetArn"`
		Max    json.Number `json:"maxReceiveCount"` // a number or a string, both are in use
	}
	json.Unmarshal([]byte(q.attrs["RedrivePolicy"]), &redrive) // absent: no redrive
	limit, _ := strconv.Atoi(redrive.Max.String())
	now := q.now()
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool {
		if len(got) >= n || m.visibleAt.After(now) {
			return false
		}
		if limit > 0 && m.received >= limit {
			go q.dead(redrive.Target, m.body) // the target may be this queue
			return true
		}
		if m.received++; m.received == 1 {
			m.first = now
		}
		m.visibleAt = now.Add(timeout)
		m.handle = uuid()
		c := *m
		got = append(got, &c)
		return false
	})
	return got, q.arrived
}

// find returns the message that a receipt handle names; nil if it is gone or was received again since. The caller holds q.mu.
func (q *queue) find(handle string) *message {
	for _, m := range q.messages {
		if m.handle == handle && handle != "" {
			return m
		}
	}
	return nil
}

// remove deletes a message; an outdated handle does nothing, as at AWS.
func (q *queue) remove(handle string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = slices.DeleteFunc(q.messages, func(m *message) bool { return m.handle == handle && handle != "" })
}

// hide sets a message's visibility timeout anew, from now. False when the handle names none in flight.
func (q *queue) hide(handle string, timeout time.Duration) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.find(handle)
	if m == nil || !m.visibleAt.After(q.now()) {
		return false
	}
	m.visibleAt = q.now().Add(timeout)
	q.wake()
	return true
}

func (q *queue) purge() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.messages = nil
}

func (q *queue) count() (visible, hidden, delayed int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := q.now()
	for _, m := range q.messages {
		switch {
		case !m.visibleAt.After(now):
			visible++
		case m.received > 0:
			hidden++
		default:
			delayed++
		}
	}
	return visible, hidden, delayed
}
