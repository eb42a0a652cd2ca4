package replicate

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// watch returns a context that ends, with an Unavailable cause, when alive was not called for limit. A large image may take
// hours and a stuck one must not: so it is progress that is bounded, not the whole. stop releases its timer.
func watch(ctx context.Context, limit time.Duration) (_ context.Context, alive, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	start := time.Now()
	var last atomic.Int64 // nanoseconds since start
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(limit, func() {
		<-armed
		if idle := time.Since(start) - time.Duration(last.Load()); idle < limit {
			timer.Reset(limit - idle)
			return
		}
		cancel(registry.Errorf(registry.Unavailable, "no progress for %v", limit))
	})
	close(armed)
	return ctx, func() { last.Store(int64(time.Since(start))) }, func() { timer.Stop(); cancel(context.Canceled) }
}
