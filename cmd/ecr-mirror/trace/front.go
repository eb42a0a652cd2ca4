package trace

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	api "go.opentelemetry.io/otel/trace"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// Front has the requests that h answers sampled. The ResponseWriter stays what it is: a wrapper would hide its ReadFrom, which is
// sendfile. What became of a request is for Answered to say.
func (t *Tracer) Front(h http.Handler) http.Handler {
	if t == nil {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !t.sampled() {
			h.ServeHTTP(w, r)
			return
		}
		ctx := r.Context()
		if p := (propagation.TraceContext{}).Extract(ctx, header{r.Header.Get("Traceparent")}); api.SpanContextFromContext(p).IsSampled() {
			ctx = p // else its parent is nowhere
		}
		ctx, span := t.tracer.Start(ctx, "request", api.WithSpanKind(api.SpanKindServer), api.WithAttributes(attribute.String("http.request.method", method(r.Method))))
		defer span.End() // after a panic, too: a response that is cut
		h.ServeHTTP(w, r.WithContext(registry.WithCause(ctx, span)))
	})
}

// header is what TraceContext reads: no more than one traceparent.
type header struct{ traceparent string }

// Get implements propagation.TextMapCarrier.
func (h header) Get(key string) string {
	if key == "traceparent" {
		return h.traceparent
	}
	return ""
}

// Set implements propagation.TextMapCarrier.
func (h header) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (h header) Keys() []string { return []string{"traceparent"} }

// method is that of a request as spans have it: one of few.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return m
	}
	return "_OTHER"
}

// Answered notes what became of a request in its span, if it has one: it is serve.Options.Answered. It is nil when tracing is off.
func (t *Tracer) Answered() func(context.Context, serve.Answer) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, a serve.Answer) {
		span := spanOf(ctx)
		if span == nil {
			return
		}
		span.SetName(a.Endpoint)
		span.SetAttributes(attribute.Int("http.response.status_code", a.Status), attribute.Int64("http.response.body.size", a.Bytes),
			attribute.String("ecr_mirror.mirror", a.Mirror), said("ecr_mirror.repository", a.Repo), said("ecr_mirror.object", a.Object),
			attribute.String("ecr_mirror.tier", a.Tier), attribute.String("ecr_mirror.class", a.Class))
		if a.Err != nil && (a.Status >= 500 || a.Status < 400) { // what is 4xx is the client's, and no error of the server's
			fail(span, a.Class, a.Err)
		}
	}
}
