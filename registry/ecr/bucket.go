package ecr

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// A bucket hands out the turns of one call. Whoever waits in a lower lane has the next turn, whatever came before; in a lane
// the first come is served first. rate.Limiter counts the tokens, but its own waiting knows no priorities: here the tokens
// are given out by a timer that runs only while somebody waits.
//
// Its rate is additive increase, multiplicative decrease: a throttled answer halves it, at most once a second, down to a
// sixteenth; good answers bring it back by a sixteenth of the full rate per second.
type bucket struct {
	full float64

	mu      sync.Mutex
	tokens  *rate.Limiter
	lanes   [registry.LaneBackfill + 1][]chan struct{} // closed: it is your turn
	timer   *time.Timer                                // nil: nobody waits
	changed time.Time                                  // when the rate was
}

// newBucket returns a full bucket of one second's worth of calls.
func newBucket(perSecond float64) *bucket {
	return &bucket{full: perSecond, tokens: rate.NewLimiter(rate.Limit(perSecond), int(max(1, math.Ceil(perSecond))))}
}

// wait returns nil when it is the caller's turn, or the context's error.
func (b *bucket) wait(ctx context.Context, lane registry.Lane) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	lane = min(lane, registry.LaneBackfill)
	b.mu.Lock()
	if b.timer == nil && b.tokens.Allow() {
		b.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	b.lanes[lane] = append(b.lanes[lane], turn)
	if b.timer == nil {
		b.arm()
	}
	b.mu.Unlock()

	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lanes[lane] = slices.DeleteFunc(b.lanes[lane], func(c chan struct{}) bool { return c == turn })
	return ctx.Err() // a turn that came at the same moment is lost: one token
}

// arm sets the timer to when the next token is there. The caller holds mu.
func (b *bucket) arm() {
	missing := 1 - b.tokens.Tokens()
	d := time.Duration(missing / float64(b.tokens.Limit()) * float64(time.Second))
	b.timer = time.AfterFunc(max(d, time.Millisecond), b.serve)
}

// serve gives the tokens that are there to those who wait, lowest lane first.
func (b *bucket) serve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		i := slices.IndexFunc(b.lanes[:], func(l []chan struct{}) bool { return len(l) > 0 })
		if i < 0 {
			b.timer = nil
			return
		}
		if !b.tokens.Allow() {
			b.arm()
			return
		}
		close(b.lanes[i][0])
		b.lanes[i] = b.lanes[i][1:]
	}
}

// throttled notes that ECR refused a call for its rate.
func (b *bucket) throttled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.changed) >= time.Second { // answers already on their way say nothing new
		b.changed = now
		b.tokens.SetLimit(rate.Limit(max(float64(b.tokens.Limit())/2, b.full/16)))
	}
}

// fine notes a good answer.
func (b *bucket) fine() {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := float64(b.tokens.Limit())
	if now := time.Now(); l < b.full && now.Sub(b.changed) >= time.Second {
		b.changed = now
		b.tokens.SetLimit(rate.Limit(min(l+b.full/16, b.full)))
	}
}
