package trace

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	api "go.opentelemetry.io/otel/trace"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Upstream has base make a span of each call that is made for something that has one. The span ends with the body of the answer.
func (t *Tracer) Upstream(base http.RoundTripper) http.RoundTripper {
	if t == nil {
		return base
	}
	return &transport{t, base}
}

type transport struct {
	t    *Tracer
	base http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	cause := spanOf(r.Context())
	if cause == nil {
		return tr.base.RoundTrip(r)
	}
	name := r.Method
	attributes := []attribute.KeyValue{attribute.String("http.request.method", r.Method), said("server.address", r.URL.Hostname()),
		said("url.full", bare(r.URL))}
	if _, api, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok { // AmazonEC2ContainerRegistry_V20150921.BatchGetImage
		name = api
		attributes = append(attributes, attribute.String("rpc.system", "aws-api"), attribute.String("rpc.service", "ECR"), attribute.String("rpc.method", api))
	}
	if r.ContentLength > 0 {
		attributes = append(attributes, attribute.Int64("http.request.body.size", r.ContentLength))
	}
	_, span := tr.t.tracer.Start(api.ContextWithSpan(r.Context(), cause), name, api.WithSpanKind(api.SpanKindClient), api.WithAttributes(attributes...))
	res, err := tr.base.RoundTrip(r)
	if err != nil {
		fail(span, registry.Unavailable.String(), plain(err))
		span.End()
		return nil, err
	}
	span.SetAttributes(attribute.Int("http.response.status_code", res.StatusCode))
	if res.StatusCode >= 400 {
		span.SetAttributes(attribute.String("error.type", http.StatusText(res.StatusCode)))
		span.SetStatus(codes.Error, "")
	}
	res.Body = &body{ReadCloser: res.Body, span: span}
	return res, nil
}

// CloseIdleConnections is what http.Client calls.
func (tr *transport) CloseIdleConnections() {
	if c, ok := tr.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// bare is u without what may be secret: a presigned URL is as good as the content.
func bare(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// plain is err without the URL that net/http prints.
func plain(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		return u.Err
	}
	return err
}

// body ends the span of a call when it has been read, or closed.
type body struct {
	io.ReadCloser
	span api.Span
	size atomic.Int64
	once sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.size.Add(int64(n))
	if err != nil {
		b.end(err)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.end(nil)
	return err
}

func (b *body) end(err error) {
	b.once.Do(func() {
		b.span.SetAttributes(attribute.Int64("http.response.body.size", b.size.Load()))
		if err != nil && err != io.EOF {
			fail(b.span, registry.Unavailable.String(), plain(err))
		}
		b.span.End()
	})
}
