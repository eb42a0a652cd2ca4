package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver takes spans as an OpenTelemetry collector does.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	raw   bytes.Buffer
	spans []*spans.Span
	block chan struct{} // requests wait for it to be closed; nil: none does
	asked chan struct{}
}

func newReceiver(t *testing.T, block chan struct{}) *receiver {
	r := &receiver{block: block, asked: make(chan struct{}, 1000)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked <- struct{}{}
		b, err := io.ReadAll(req.Body)
		if r.block != nil {
			select {
			case <-r.block:
			case <-req.Context().Done():
				return
			}
		}
		var e collector.ExportTraceServiceRequest
		if err != nil || req.URL.Path != "/otlp/v1/traces" || proto.Unmarshal(b, &e) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.raw.Write(b)
		for _, rs := range e.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// got returns what came, by name.
func (r *receiver) got() map[string]*spans.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make(map[string]*spans.Span)
	for _, s := range r.spans {
		all[s.Name] = s
	}
	return all
}

func newTracer(t *testing.T, r *receiver, o Options) *Tracer {
	t.Helper()
	o.Endpoint = r.URL + "/otlp"
	tr, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func attributes(s *spans.Span) string {
	var all []string
	for _, a := range s.GetAttributes() {
		v := a.Value.GetStringValue()
		if v == "" {
			v = fmt.Sprint(a.Value.GetIntValue())
		}
		all = append(all, a.Key+"="+v)
	}
	return strings.Join(all, " ")
}

// answering is a front that answers with status, and makes a call upstream.
func answering(tr *Tracer, upstream string, a serve.Answer) http.Handler {
	client := &http.Client{Transport: tr.Upstream(&http.Transport{DisableKeepAlives: true})}
	told := tr.Answered()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if upstream != "" {
			ctx := registry.Apart(context.Background(), r.Context()) // as a fill does
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, upstream+"/v2/app/blobs/x?X-Amz-Signature=s3cret", nil)
			if err != nil {
				panic(err)
			}
			req.URL.User = nil
			req.Header.Set("Authorization", "Bearer s3cret")
			res, err := client.Do(req)
			if err != nil {
				panic(err)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				panic(err)
			}
			res.Body.Close()
		}
		w.WriteHeader(a.Status)
		if told != nil {
			told(r.Context(), a)
		}
	})
}

// A request, the call upstream that it causes and a job have spans; the second is the first's child; no secret is in any.
func TestSpans(t *testing.T) {
	r := newReceiver(t, nil)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "content") }))
	defer up.Close()
	tr := newTracer(t, r, Options{Sample: 1, Version: "v1"})
	front := tr.Front(answering(tr, up.URL, serve.Answer{Endpoint: "blob", Mirror: "m", Repo: "team/app", Object: strings.Repeat("x", 5000), Tier: "source", Status: 200, Bytes: 7, Class: "ok"}))
	req := httptest.NewRequest("GET", "/v2/team/app/blobs/x?ns=s3cret", nil)
	req.Header.Set("Authorization", "Basic s3cret")
	req.Header.Set("Traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
	req.Header.Set("Tracestate", "s3cret=s3cret")
	front.ServeHTTP(httptest.NewRecorder(), req)
	odd := serve.Answer{Endpoint: "odd", Repo: "a\xffb", Object: "\xff", Status: 500, Class: "internal_error", Err: errors.New(strings.Repeat("x", maxAttribute-1) + "\u20ac")}
	tr.Front(answering(tr, "", odd)).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	ctx, end := tr.Begin()(t.Context(), replicate.Job{Key: replicate.Key{Mirror: "m", Destination: "d", Repo: "team/app", Tag: "v1"}, Lane: registry.LaneEvent})
	if spanOf(ctx) == nil {
		t.Error("the job's calls have no cause")
	}
	end("unavailable", registry.Errorf(registry.Unavailable, "no answer"))
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	all := r.got()
	request, call, job := all["blob"], all["GET"], all["replicate"]
	if request == nil || call == nil || job == nil || len(all) != 4 {
		t.Fatalf("spans %v", all)
	}
	if fmt.Sprintf("%x %x", request.TraceId, request.ParentSpanId) != "0123456789abcdef0123456789abcdef 0123456789abcdef" {
		t.Errorf("the request's parent: %x %x", request.TraceId, request.ParentSpanId)
	}
	if !bytes.Equal(call.ParentSpanId, request.SpanId) || !bytes.Equal(call.TraceId, request.TraceId) || len(job.ParentSpanId) > 0 {
		t.Error("who is whose child?")
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(up.URL, "http://"), ":")
	for s, want := range map[*spans.Span]string{
		request: "http.request.method=GET http.response.status_code=200 http.response.body.size=7 ecr_mirror.mirror=m ecr_mirror.repository=team/app ecr_mirror.object=" +
			strings.Repeat("x", maxAttribute) + " ecr_mirror.tier=source ecr_mirror.class=ok",
		call: "http.request.method=GET server.address=" + host + " url.full=" + up.URL + "/v2/app/blobs/x http.response.status_code=200 http.response.body.size=7",
		job: "ecr_mirror.mirror=m ecr_mirror.destination=d ecr_mirror.repository=team/app ecr_mirror.object=v1 ecr_mirror.lane=event ecr_mirror.attempt=1 " +
			"ecr_mirror.result=unavailable error.type=unavailable",
	} {
		if got := attributes(s); got != want {
			t.Errorf("%s\n got %s\nwant %s", s.Name, got, want)
		}
	}
	if request.Kind != spans.Span_SPAN_KIND_SERVER || call.Kind != spans.Span_SPAN_KIND_CLIENT || job.Status.Code != spans.Status_STATUS_CODE_ERROR {
		t.Errorf("%v %v %v", request.Kind, call.Kind, job.Status)
	}
	if s := all["odd"]; !strings.Contains(attributes(s), "repository=a?b ") || s.GetStatus().GetMessage() != strings.Repeat("x", maxAttribute-1)+"?" {
		t.Errorf("what is not UTF-8: %v", s)
	}
	if strings.Contains(r.raw.String(), "s3cret") {
		t.Error("a secret left")
	}
	if n := testutil.ToFloat64(tr.sent.WithLabelValues("ok")); n != 4 {
		t.Errorf("%v spans counted", n)
	}
}

// Whether a request has a span is decided here: a client that sends a sampled traceparent with each has none sampled more, and one
// that says that it is not sampled is not listened to either. What 4xx says is no error of the mirror's, and 5xx is.
func TestClientsDoNotSample(t *testing.T) {
	r := newReceiver(t, nil)
	n := 0
	tr := newTracer(t, r, Options{Sample: 0.01, Random: func() float64 { n++; return float64(n%100) / 100 }})
	for i := range 1000 {
		a := serve.Answer{Endpoint: fmt.Sprint("request", i), Status: 404, Class: "not_found", Err: registry.NotFound}
		if i == 999 {
			a.Status, a.Class, a.Err = 503, "unavailable", registry.Unavailable
		}
		req := httptest.NewRequest("ODD", "/v2/", nil)
		req.Header.Set("Traceparent", fmt.Sprintf("00-000000000000000000000000%08x-0123456789abcdef-%02x", i+1, i/200%2))
		tr.Front(answering(tr, "", a)).ServeHTTP(httptest.NewRecorder(), req)
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	all := r.got()
	if len(all) != 10 {
		t.Errorf("%d spans of 1000 requests", len(all))
	}
	for name, s := range all {
		if sampled := bytes.HasPrefix(s.TraceId, make([]byte, 12)); sampled != (len(s.ParentSpanId) > 0) {
			t.Errorf("%s: trace %x, parent %x", name, s.TraceId, s.ParentSpanId)
		}
		if want := name == "request999"; want != (s.Status.GetCode() == spans.Status_STATUS_CODE_ERROR) {
			t.Errorf("%s: %v", name, s.Status)
		}
		if !strings.Contains(attributes(s), "method=_OTHER") {
			t.Errorf("%s: %s", name, attributes(s))
		}
	}
	if len(all["request99"].GetParentSpanId())+len(all["request399"].GetParentSpanId()) != 8 {
		t.Error("a parent that is sampled is one, and another is not")
	}
}

// A collector that does not answer holds up nothing, and no more memory than its queue; the end comes in time.
func TestSlowCollector(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	r := newReceiver(t, block)
	tr := newTracer(t, r, Options{Sample: 1})
	front := tr.Front(answering(tr, "", serve.Answer{Endpoint: "blob", Status: 200, Class: "ok"}))
	for range 3 * maxQueue {
		front.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	}
	<-r.asked // it is at it, and everything above went on
	began := time.Now()
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > flushTime+10*time.Second {
		t.Errorf("the end took %v", d)
	}
}

// A collector that is not there is said once, and counted.
func TestNoCollector(t *testing.T) {
	r := newReceiver(t, nil)
	r.Close()
	tr := newTracer(t, r, Options{Sample: 1})
	front := tr.Front(answering(tr, "", serve.Answer{Endpoint: "blob", Status: 200, Class: "ok"}))
	for range 10 {
		front.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/v2/", nil))
	}
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	if n := testutil.ToFloat64(tr.sent.WithLabelValues("failed")); n != 10 {
		t.Errorf("%v spans failed", n)
	}
}

// Tracing that is off is nothing; and on, the handler gets the server's own ResponseWriter, and what is not sampled allocates
// nothing more.
func TestOff(t *testing.T) {
	var off *Tracer
	base := &http.Transport{}
	handler := http.NewServeMux()
	if off.Front(handler) != http.Handler(handler) || off.Upstream(base) != http.RoundTripper(base) || off.Answered() != nil || off.Begin() != nil || off.Close() != nil || off.Collectors() != nil {
		t.Error("it does something")
	}
	r := newReceiver(t, nil)
	chance := 0.0
	tr := newTracer(t, r, Options{Sample: 0.5, Random: func() float64 { return chance }})
	defer tr.Close()
	w := httptest.NewRecorder()
	told, reached := tr.Answered(), 0
	inner := http.HandlerFunc(func(got http.ResponseWriter, r *http.Request) {
		if reached++; got != http.ResponseWriter(w) {
			t.Error("the ResponseWriter is wrapped: no sendfile")
		}
		told(r.Context(), serve.Answer{Endpoint: "blob", Status: 200})
	})
	front := tr.Front(inner)
	req := httptest.NewRequest("GET", "/v2/", nil)
	front.ServeHTTP(w, req)
	chance = 1
	bare := testing.AllocsPerRun(100, func() { inner.ServeHTTP(w, req) })
	if n := testing.AllocsPerRun(100, func() { front.ServeHTTP(w, req) }); n != bare || reached < 200 {
		t.Errorf("%v allocations for a request that is not sampled, %v without tracing", n, bare)
	}
}
