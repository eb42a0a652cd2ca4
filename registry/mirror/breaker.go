package mirror

import (
	"sync"
	"time"
)

const (
	breakerFails = 3               // failures in a row before an upstream is left alone
	breakerPause = 5 * time.Second // for how long; then one call tries again
)

// breaker keeps callers from waiting for an upstream that does not answer, and the upstream from being hammered.
type breaker struct {
	mu       sync.Mutex
	fails    int // in a row
	failedAt time.Time
	probing  bool
}

// allow reports whether a call may be made; every allowed call ends with done.
func (b *breaker) allow(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fails < breakerFails {
		return true
	}
	if b.probing || now.Sub(b.failedAt) < breakerPause {
		return false
	}
	b.probing = true
	return true
}

// open reports whether calls are not made now.
func (b *breaker) open(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fails >= breakerFails && now.Sub(b.failedAt) < breakerPause
}

func (b *breaker) done(now time.Time, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	if !failed {
		b.fails = 0
		return
	}
	b.fails++
	b.failedAt = now
}
