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

// A bucket hands out the turns of one call. Whoever waits in a lower lane has the next turn, whatever came before, but every
// eighth turn is for who was passed over for ten seconds, so that no lane starves; in a lane the first come is served first.
// rate.Limiter counts the tokens, but its own waiting knows no priorities: here the tokens are given out by a timer that
// runs only while somebody waits.
//
// Its rate is additive increase, multiplicative decrease: a throttled answer halves it, at most once a second, down to a
// sixteenth, and takes the tokens that were saved; good answers bring it back by a sixteenth of the full rate per second.
type bucket struct {
	full float64

	mu      sync.Mutex
	tokens  *rate.Limiter
	lanes   [registry.LaneBackfill + 1][]*turn
	passed  int         // turns since somebody who is aged had one
	timer   *time.Timer // nil: nobody waits
	changed time.Time   // when the rate was
}

// turn is one who waits.
type turn struct {
	ready chan struct{} // closed: it is yours
	since time.Time
}

const (
	agedShare = 8                // one turn of so many is for the aged
	agedAfter = 10 * time.Second // waiting
)

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
	mine := &turn{make(chan struct{}), time.Now()}
	b.lanes[lane] = append(b.lanes[lane], mine)
	if b.timer == nil {
		b.arm()
	}
	b.mu.Unlock()

	select {
	case <-mine.ready:
		return nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lanes[lane] = slices.DeleteFunc(b.lanes[lane], func(t *turn) bool { return t == mine })
	return ctx.Err() // a turn that came at the same moment is lost: one token
}

// arm sets the timer to when the next token is there. The caller holds mu.
func (b *bucket) arm() {
	missing := 1 - b.tokens.Tokens()
	d := time.Duration(missing / float64(b.tokens.Limit()) * float64(time.Second))
	b.timer = time.AfterFunc(max(d, time.Millisecond), b.serve)
}

// serve gives the tokens that are there to those who wait.
func (b *bucket) serve() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		i := b.next(time.Now())
		if i < 0 {
			b.timer = nil
			return
		}
		if !b.tokens.Allow() {
			b.arm()
			return
		}
		if aged(b.lanes[i], time.Now()) {
			b.passed = 0
		} else {
			b.passed++
		}
		close(b.lanes[i][0].ready)
		b.lanes[i] = b.lanes[i][1:]
	}
}

// next returns the lane whose turn it is, -1 when nobody waits: the lowest, or in its time the one that waits longest.
func (b *bucket) next(now time.Time) int {
	lowest, oldest := -1, -1
	for i, l := range b.lanes {
		if len(l) == 0 {
			continue
		}
		if lowest < 0 {
			lowest = i
		}
		if aged(l, now) && (oldest < 0 || l[0].since.Before(b.lanes[oldest][0].since)) {
			oldest = i
		}
	}
	if oldest >= 0 && b.passed >= agedShare-1 {
		return oldest
	}
	return lowest
}

func aged(l []*turn, now time.Time) bool { return len(l) > 0 && now.Sub(l[0].since) >= agedAfter }

// throttled notes that ECR refused a call for its rate.
func (b *bucket) throttled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.changed) >= time.Second { // answers already on their way say nothing new
		b.changed = now
		b.tokens.AllowN(now, int(b.tokens.TokensAt(now)))
		b.tokens.SetLimitAt(now, rate.Limit(max(float64(b.tokens.Limit())/2, b.full/16)))
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
