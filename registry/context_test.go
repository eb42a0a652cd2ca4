package registry_test

import (
	"context"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// What is done apart from its asker has the asker's lane and cause, and neither its end nor its Trace.
func TestApart(t *testing.T) {
	var trace registry.Trace
	asker, cancel := context.WithCancel(registry.WithTrace(registry.WithCause(registry.WithLane(t.Context(), registry.LaneSweep), "a job"), &trace))
	ctx := registry.Apart(context.Background(), asker)
	cancel()
	registry.TraceOf(ctx).SetTier("source")
	registry.TraceOf(ctx).SetStale(time.Second)
	if ctx.Err() != nil || trace.Tier() != "" || trace.Stale() != 0 || registry.LaneOf(ctx) != registry.LaneSweep || registry.CauseOf(ctx) != "a job" {
		t.Errorf("%v, tier %q, lane %v, cause %v", ctx.Err(), trace.Tier(), registry.LaneOf(ctx), registry.CauseOf(ctx))
	}
	if ctx := registry.Apart(context.Background(), t.Context()); registry.LaneOf(ctx) != registry.LaneClient || registry.CauseOf(ctx) != nil {
		t.Errorf("of nobody: lane %v, cause %v", registry.LaneOf(ctx), registry.CauseOf(ctx))
	}
}
