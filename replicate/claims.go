package replicate

import (
	"context"
	"sync"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// claims makes sure that no two jobs send the same object to the same destination at a time: a base layer that ten images
// share is uploaded once.
//
// Nobody waits for a claim while holding one: a holder checks, sends and gives up its claims, and only then waits for what
// others held. So there is no deadlock, whatever the manifests refer to.
type claims struct {
	mu   sync.Mutex
	held map[claim]*holding
}

type claim struct {
	destination string
	object      registry.Object // as the destination names it
}

type holding struct {
	done chan struct{} // closed when the claim was given up
	sent bool          // the object is at the destination; valid after done
}

// take claims those of objects that nobody holds; the others' holdings are returned by object.
func (c *claims) take(destination string, objects []registry.Object) (mine []registry.Object, theirs map[registry.Object]*holding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = make(map[claim]*holding)
	}
	theirs = make(map[registry.Object]*holding)
	for _, o := range objects {
		k := claim{destination, o}
		if h := c.held[k]; h != nil {
			theirs[o] = h
			continue
		}
		c.held[k] = &holding{done: make(chan struct{})}
		mine = append(mine, o)
	}
	return mine, theirs
}

// giveUp ends a claim that take returned as mine.
func (c *claims) giveUp(destination string, o registry.Object, sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := claim{destination, o}
	h := c.held[k]
	delete(c.held, k)
	h.sent = sent
	close(h.done)
}

// wait returns whether the holder sent the object. Meanwhile alive is called now and then: the holder's own watchdog
// bounds the wait, not the waiter's.
func (h *holding) wait(ctx context.Context, alive func(int64)) (bool, error) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-h.done:
			return h.sent, nil
		case <-t.C:
			alive(0)
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}
