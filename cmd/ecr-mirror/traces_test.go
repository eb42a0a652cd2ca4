package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// A pull that misses has a span for each of its requests, with the calls to ECR and to the layer host below it; so has the
// replication that follows. Neither credentials nor presigned URLs leave.
func TestTraces(t *testing.T) {
	var mu sync.Mutex
	var raw bytes.Buffer
	var said collector.ExportTraceServiceRequest
	out := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if raw.Write(b); err != nil || (proto.UnmarshalOptions{Merge: true}).Unmarshal(b, &said) != nil {
			t.Error("not an ExportTraceServiceRequest")
		}
	}))
	defer out.Close()
	var credentials aws.Credentials
	t.Run("until the mirror has ended", func(t *testing.T) { // and has sent what there was
		r := newRig(t, "traces: {endpoint: "+out.URL+", sample: 1}\n")
		credentials = r.emu.Credentials(demoSourceAccount)
		img := registrytest.Image(1, 1<<16)
		r.seed("app", "v1", img)
		must(t, r.pulled("app", "v1"))
		r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
		r.idle()
	})

	mu.Lock()
	defer mu.Unlock()
	names, parent := make(map[string]string), make(map[string]string)
	for _, rs := range said.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				names[string(s.SpanId)], parent[string(s.SpanId)] = s.Name, string(s.ParentSpanId)
			}
		}
	}
	var edges []string
	for id, name := range names {
		edges = append(edges, names[parent[id]]+" > "+name)
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	for _, want := range []string{" > manifest", " > blob", " > replicate", "manifest > BatchGetImage", "blob > GetDownloadUrlForLayer", "blob > GET",
		"replicate > PutImage", "replicate > InitiateLayerUpload"} {
		if !slices.Contains(edges, want) {
			t.Errorf("no %s in %q", want, edges)
		}
	}
	for _, e := range edges {
		if name, ok := strings.CutPrefix(e, " > "); ok && !slices.Contains([]string{"base", "manifest", "blob", "replicate"}, name) {
			t.Errorf("%s belongs to nothing", name)
		}
	}
	for _, secret := range []string{"Signature", "X-Amz-", "Credential", credentials.SecretAccessKey, credentials.AccessKeyID, url.QueryEscape(credentials.AccessKeyID)} {
		if strings.Contains(raw.String(), secret) {
			t.Errorf("%q left", secret)
		}
	}
}

// BenchmarkHot is what a hot manifest and a hot blob cost in the front, without traces, with traces of which none is sampled, and with all.
func BenchmarkHot(b *testing.B) {
	out := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer out.Close()
	img := registrytest.Image(1, 100<<10)
	for _, traces := range []string{"off", "1e-9", "1"} {
		extra := ""
		if traces != "off" {
			extra = fmt.Sprintf("traces: {endpoint: %s, sample: %s}\n", out.URL, traces)
		}
		r := newRig(b, extra)
		r.seed("app", "v1", img)
		must(b, r.pulled("app", "v1"))
		front, err := newFront(config.Limits{Requests: 100, RequestsPerClient: 100}, r.app.fronts, r.app.metrics, r.app.traces, r.app.log)
		must(b, err)
		h := r.app.traces.Front(front)
		for name, path := range map[string]string{"manifest": "/v2/app/manifests/" + img.Desc.Digest.String(), "blob": "/v2/app/blobs/" + img.Blobs[1].Desc.Digest.String()} {
			b.Run("traces "+traces+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				req := httptest.NewRequest(http.MethodGet, path, nil)
				for b.Loop() {
					w := discard{http.Header{}}
					h.ServeHTTP(w, req)
				}
			})
		}
	}
}

// discard is a ResponseWriter of which nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}
func (d discard) Flush()                      {}
