package ecr

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "111122223333"
	host    = account + ".dkr.ecr.us-west-2.amazonaws.com"
)

type fields = map[string]any

// answer is one scripted answer of the control API: a JSON body, an exception, or a cut connection.
type answer struct {
	body      any
	exception string
	status    int // 0: 200, or 400 for an exception
	header    http.Header
	cut       bool // hang up instead of answering: what the call does has happened
}

func ok(body any) answer                { return answer{body: body} }
func exc(name string) answer            { return answer{exception: name} }
func excWith(n string, b fields) answer { return answer{exception: n, body: b} }

// control is a scripted awsJson1.1 server: calls must come in the script's order, and each is recorded.
type control struct {
	t      *testing.T
	mu     sync.Mutex
	script []step
	calls  []string
	srv    *httptest.Server
}

// step is the call that is expected and its answer; check, if any, sees the request.
type step struct {
	op     string
	answer answer
	check  func(t *testing.T, in fields)
}

func newControl(t *testing.T, script ...step) *control {
	c := &control{t: t, script: script}
	c.srv = httptest.NewServer(c)
	t.Cleanup(func() {
		c.srv.Close()
		if len(c.script) > 0 {
			t.Errorf("script: %d calls were never made, the next is %s", len(c.script), c.script[0].op)
		}
	})
	return c
}

func (c *control) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	op := strings.TrimPrefix(req.Header.Get("X-Amz-Target"), "AmazonEC2ContainerRegistry_V20150921.")
	var in fields
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		c.t.Errorf("%s: request body: %v", op, err)
	}
	if in["registryId"] != account {
		c.t.Errorf("%s: registryId %v", op, in["registryId"])
	}
	if !strings.Contains(req.Header.Get("Authorization"), "/us-west-2/ecr/aws4_request") {
		c.t.Errorf("%s: signed for %q", op, req.Header.Get("Authorization"))
	}
	c.mu.Lock()
	c.calls = append(c.calls, op)
	var s step
	if len(c.script) > 0 {
		s, c.script = c.script[0], c.script[1:]
	}
	c.mu.Unlock()
	if s.op != op {
		c.t.Errorf("got call %s, the script has %q", op, s.op)
	}
	if s.check != nil {
		s.check(c.t, in)
	}
	a := s.answer
	if a.cut {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", "req-1")
	for k, v := range a.header {
		w.Header()[k] = v
	}
	body := a.body
	if a.exception != "" {
		f := fields{"__type": a.exception, "message": "because of " + a.exception}
		if m, ok := a.body.(fields); ok {
			for k, v := range m {
				f[k] = v
			}
		}
		body = f
		if a.status == 0 {
			a.status = http.StatusBadRequest
		}
	}
	if a.status != 0 {
		w.WriteHeader(a.status)
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		c.t.Error(err)
	}
}

func (c *control) wantCalls(want ...string) {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := cmp.Diff(want, c.calls); d != "" {
		c.t.Errorf("upstream calls (-want +got):\n%s", d)
	}
}

// registry returns a Registry that talks to c.
func (c *control) registry(change ...func(*Options)) *Registry {
	c.t.Helper()
	tr := &http.Transport{}
	o := Options{Host: host, Endpoint: c.srv.URL, StallTimeout: 5 * time.Second, AWS: fixedAWS()}
	o.AWS.HTTPClient = &http.Client{Transport: tr}
	for _, f := range change {
		f(&o)
	}
	r, err := New(c.t.Context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { tr.CloseIdleConnections(); r.Close() })
	return r
}

func fixedAWS() *aws.Config {
	return &aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}
}

func wantClass(t *testing.T, err error, class registry.Class, code string) {
	t.Helper()
	if err == nil || registry.ClassOf(err) != class || registry.CodeOf(err) != code {
		t.Errorf("got %v (class %v, code %q), want class %v, code %q", err, registry.ClassOf(err), registry.CodeOf(err), class, code)
	}
}

func imageAnswer(n registrytest.Node, tag string) fields {
	return fields{"images": []any{fields{"imageId": fields{"imageDigest": n.Desc.Digest, "imageTag": tag},
		"imageManifest": string(n.Body), "imageManifestMediaType": n.Desc.MediaType}}}
}

func layersAnswer(all ...any) fields { return fields{"layers": all} }

func layer(d registry.Descriptor, availability string) fields {
	return fields{"layerDigest": d.Digest, "layerAvailability": availability, "layerSize": d.Size}
}

func readAll(t *testing.T, c *registry.Content, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != c.Range.Length {
		t.Errorf("read %d bytes of a range of %d", len(b), c.Range.Length)
	}
	return b
}

func object(d registry.Descriptor, kind registry.Kind) registry.Object {
	return registry.Object{Repo: "team/app", Kind: kind, Digest: d.Digest}
}

func repeat(n int, s string) []string {
	return strings.Fields(strings.Repeat(s+" ", n))
}

func path(i int) string { return fmt.Sprintf("/layer-%d", i) }
