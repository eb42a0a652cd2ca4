package serve

import (
	"context"
	"net/netip"
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// turns bounds the questions that are asked at once, in total and for one client address, so that no client keeps the others
// waiting. What is over a bound waits for its turn, and what waits is bounded by client, too.
type turns struct {
	all           chan struct{}
	each, waiting int // of one client: asked at once; asked or waiting

	mu sync.Mutex
	of map[netip.Addr]*queue // of clients that ask or wait
}

type queue struct {
	slots chan struct{}
	in    int // asked or waiting
}

func newTurns(total, each, waiting int) *turns {
	return &turns{all: make(chan struct{}, total), each: each, waiting: waiting, of: make(map[netip.Addr]*queue)}
}

var errManyTokens = registry.Errorf(registry.Unavailable, "token: too many are being checked")

// take waits for the client's turn, which ends with leave.
func (t *turns) take(ctx context.Context, client netip.Addr) (leave func(), err error) {
	q := t.enter(client)
	if q == nil {
		return nil, errManyTokens
	}
	for i, slots := range [...]chan struct{}{q.slots, t.all} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			if i > 0 {
				<-q.slots
			}
			t.leave(client, q)
			return nil, errManyTokens
		}
	}
	return func() { <-t.all; <-q.slots; t.leave(client, q) }, nil
}

// enter returns the client's queue with one more in it, or nil if it is full.
func (t *turns) enter(client netip.Addr) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[client]
	if q == nil {
		q = &queue{slots: make(chan struct{}, t.each)}
		t.of[client] = q
	}
	if q.in >= t.waiting {
		return nil
	}
	q.in++
	return q
}

func (t *turns) leave(client netip.Addr, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.in--; q.in == 0 {
		delete(t.of, client)
	}
}
