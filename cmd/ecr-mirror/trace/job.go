package trace

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	api "go.opentelemetry.io/otel/trace"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// Begin makes the span of an attempt at a job: it is replicate.Options.Begin. It is nil when tracing is off.
func (t *Tracer) Begin() func(context.Context, replicate.Job) (context.Context, func(string, error)) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, j replicate.Job) (context.Context, func(string, error)) {
		if !t.sampled() {
			return ctx, func(string, error) {}
		}
		ctx, span := t.tracer.Start(ctx, "replicate", api.WithNewRoot(), api.WithAttributes(attribute.String("ecr_mirror.mirror", j.Mirror),
			attribute.String("ecr_mirror.destination", j.Destination), said("ecr_mirror.repository", j.Repo),
			said("ecr_mirror.object", j.Tag+j.Digest.String()), attribute.String("ecr_mirror.lane", j.Lane.String()), attribute.Int("ecr_mirror.attempt", j.Attempts+1)))
		return registry.WithCause(ctx, span), func(result string, err error) {
			span.SetAttributes(attribute.String("ecr_mirror.result", result))
			if err != nil {
				fail(span, registry.Result(err), err)
			}
			span.End()
		}
	}
}
