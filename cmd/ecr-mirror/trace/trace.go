// Package trace makes OpenTelemetry spans at the mirror's three edges: requests of clients, calls to upstreams, and attempts at
// replication jobs, and sends them by OTLP over HTTP. A nil *Tracer is tracing that is off: it changes nothing of what it is put
// around.
//
// What is sampled is decided here, by chance, and by nobody who asks: a client's traceparent only says what the span of a request
// that is sampled anyway is a part of. Calls to upstreams have spans when what they are made for has: the request or the job that
// first wanted a fill. Spans hold no headers and no query strings, so no tokens and no presigned URLs.
//
// # Limitations
//
// No context is sent to upstreams, nor are there spans of calls to SQS and of the confirmation of clients' ECR tokens. What the
// collector does not take in time is dropped, and counted in whole batches only.
package trace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	api "go.opentelemetry.io/otel/trace"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Bounds of what waits to be sent, of an attribute in bytes, and of the time that sending and the last of it take.
const (
	maxQueue     = 2048 // spans
	maxBatch     = 512
	maxAttribute = 512
	sendTime     = 10 * time.Second
	flushTime    = 5 * time.Second
)

// Options of New. Endpoint and Sample are required.
type Options struct {
	Endpoint string // the collector's base URL, as http://127.0.0.1:4318: spans are posted to /v1/traces below it
	Sample   float64
	Version  string // of the service
	Logger   *slog.Logger
	Random   func() float64 // nil: math/rand/v2
}

// Tracer makes spans. Its methods may be called on nil.
type Tracer struct {
	tracer   api.Tracer
	provider *sdk.TracerProvider
	sample   float64
	random   func() float64
	sent     *prometheus.CounterVec
}

// New returns a Tracer that sends what it samples. Nobody is asked yet. The environment may add what OTLP exporters take from it,
// as OTEL_EXPORTER_OTLP_HEADERS. The caller calls Close.
func New(ctx context.Context, o Options) (*Tracer, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	out, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(o.Endpoint+"/v1/traces"), otlptracehttp.WithTimeout(sendTime),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false})) // what waits for a collector that is gone is bounded by the queue
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	t := &Tracer{sample: o.Sample, random: o.Random, sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_trace_spans_total",
		Help: "Spans handed to the collector of traces, by result: ok, or failed and dropped; only with traces."}, []string{"result"})}
	limits := sdk.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxAttribute
	t.provider = sdk.NewTracerProvider(sdk.WithSampler(sdk.AlwaysSample()), // New spans are only asked for when they are wanted
		sdk.WithRawSpanLimits(limits),
		sdk.WithResource(resource.NewSchemaless(attribute.String("service.name", "ecr-mirror"), attribute.String("service.version", o.Version))),
		sdk.WithBatcher(&exporter{SpanExporter: out, sent: t.sent, log: o.Logger}, sdk.WithMaxQueueSize(maxQueue), sdk.WithMaxExportBatchSize(maxBatch), sdk.WithExportTimeout(sendTime)))
	t.tracer = t.provider.Tracer("github.com/ecr-mirror/ecr-mirror")
	return t, nil
}

// Collectors returns the metrics.
func (t *Tracer) Collectors() []prometheus.Collector {
	if t == nil {
		return nil
	}
	return []prometheus.Collector{t.sent}
}

// Close sends what is left, within five seconds; what takes longer is dropped.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTime)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("traces: %w", err)
	}
	return nil
}

// sampled throws the dice.
func (t *Tracer) sampled() bool { return t != nil && t.random() < t.sample }

// spanOf is the span of what a call is made for, or nil if that is not sampled.
func spanOf(ctx context.Context) api.Span {
	s, _ := registry.CauseOf(ctx).(api.Span)
	return s
}

// fail notes how a span's operation failed. An error of ours names places and classes, and never a secret: it is in the log, too.
func fail(s api.Span, class string, err error) {
	s.SetAttributes(attribute.String("error.type", class))
	reason := err.Error()
	s.SetStatus(codes.Error, strings.ToValidUTF8(reason[:min(len(reason), maxAttribute)], "?"))
}

// said is an attribute that somebody else has a say in: a batch with a text that is not UTF-8 would be lost whole.
func said(key, value string) attribute.KeyValue {
	return attribute.String(key, strings.ToValidUTF8(value, "?"))
}

// exporter is one whose failures are logged once, and not until it has worked again, and counted.
type exporter struct {
	sdk.SpanExporter
	sent   *prometheus.CounterVec
	log    *slog.Logger
	broken atomic.Bool
}

func (e *exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		e.sent.WithLabelValues("failed").Add(float64(len(spans)))
		if !e.broken.Swap(true) {
			e.log.Warn("traces do not reach their collector, and are dropped", "error", err)
		}
		return nil // it has been handled
	}
	e.sent.WithLabelValues("ok").Add(float64(len(spans)))
	if e.broken.Swap(false) {
		e.log.Info("traces reach their collector again")
	}
	return nil
}
