package ecr

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// layers is a layer host; every request is checked and recorded as "path range".
type layers struct {
	t     *testing.T
	mu    sync.Mutex
	calls []string
	serve func(w http.ResponseWriter, req *http.Request, n int)
	srv   *httptest.Server
}

func newLayers(t *testing.T, serve func(w http.ResponseWriter, req *http.Request, n int)) *layers {
	l := &layers{t: t, serve: serve}
	l.srv = httptest.NewServer(l)
	t.Cleanup(l.srv.Close)
	return l
}

func (l *layers) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if a := req.Header.Get("Authorization"); a != "" {
		l.t.Errorf("the layer host got credentials: %q", a)
	}
	if e := req.Header.Get("Accept-Encoding"); e != "identity" || req.Method != "GET" || req.ProtoMajor != 1 {
		l.t.Errorf("%s %s with Accept-Encoding %q", req.Proto, req.Method, e)
	}
	l.mu.Lock()
	l.calls = append(l.calls, strings.TrimSpace(req.URL.Path+" "+req.Header.Get("Range")))
	n := len(l.calls)
	l.mu.Unlock()
	l.serve(w, req, n)
}

// mint answers GetDownloadUrlForLayer with the layer host's URL number i.
func (l *layers) mint(i int) step {
	u := l.srv.URL + path(i) + "?X-Amz-Expires=3600&X-Amz-Date=" + time.Now().UTC().Format("20060102T150405Z") + "&X-Amz-Signature=topsecret"
	return step{downloadURL, ok(fields{"downloadUrl": u}), nil}
}

func (l *layers) wantCalls(want ...string) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := cmp.Diff(want, l.calls); d != "" {
		l.t.Errorf("layer host calls (-want +got):\n%s", d)
	}
}

func serveBytes(b []byte) func(w http.ResponseWriter, req *http.Request, n int) {
	return func(w http.ResponseWriter, req *http.Request, _ int) {
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(b))
	}
}

func TestOpenLayerRanges(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 1000))
	l := newLayers(t, serveBytes(b.Body))
	c := newControl(t, l.mint(0))
	r := c.registry()
	o := object(b.Desc, registry.Blob)
	for _, tc := range []struct {
		rg     registry.Range
		header string
	}{
		{registry.Whole, ""},
		{registry.Range{Offset: 0, Length: 10}, "bytes=0-9"},
		{registry.Range{Offset: 990, Length: 100}, "bytes=990-1089"},
		{registry.Range{Offset: 500, Length: -1}, "bytes=500-"},
		{registry.Range{Offset: 7, Length: 0}, "bytes=7-7"},
		{registry.Range{Offset: 999, Length: 1<<63 - 1}, "bytes=999-"},
	} {
		content, err := r.Open(t.Context(), o, tc.rg)
		got := readAll(t, content, err)
		want, _ := tc.rg.Clip(1000)
		if !bytes.Equal(got, b.Body[want.Offset:want.Offset+want.Length]) || content.Range != want || content.Descriptor.Size != 1000 || content.Sequential {
			t.Errorf("%v: got %d bytes, content %+v", tc.rg, len(got), content)
		}
		if call := strings.TrimSpace(path(0) + " " + tc.header); l.calls[len(l.calls)-1] != call {
			t.Errorf("%v: asked %q, want %q", tc.rg, l.calls[len(l.calls)-1], call)
		}
	}
	_, err := r.Open(t.Context(), o, registry.Range{Offset: 1000, Length: 1})
	wantClass(t, err, registry.Invalid, "")
	c.wantCalls(downloadURL) // one URL for all of it
}

func TestLayerHostIgnoresRange(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 200_000))
	l := newLayers(t, func(w http.ResponseWriter, req *http.Request, _ int) {
		w.Header().Set("Content-Length", "200000")
		w.Write(b.Body)
	})
	r := newControl(t, l.mint(0)).registry()
	content, err := r.Open(t.Context(), object(b.Desc, registry.Blob), registry.Range{Offset: 150_000, Length: 10})
	if got := readAll(t, content, err); !bytes.Equal(got, b.Body[150_000:150_010]) || !content.Sequential {
		t.Errorf("got %d bytes, sequential %v", len(got), content.Sequential)
	}
}

// A URL that the layer host refuses is renewed once, and no more.
func TestRefusedURLIsRenewedOnce(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 100))
	for _, status := range []int{400, 403} {
		for bad, wantErr := range map[int]bool{1: false, 2: true} {
			t.Run(fmt.Sprint(status, bad), func(t *testing.T) {
				l := newLayers(t, func(w http.ResponseWriter, req *http.Request, n int) {
					if n <= bad {
						w.WriteHeader(status)
						fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")
						return
					}
					serveBytes(b.Body)(w, req, n)
				})
				c := newControl(t, l.mint(0), l.mint(1))
				content, err := c.registry().Open(t.Context(), object(b.Desc, registry.Blob), registry.Whole)
				if wantErr {
					wantClass(t, err, registry.Denied, codeDenied)
					if !strings.Contains(err.Error(), `"AccessDenied"`) || strings.Contains(err.Error(), "topsecret") {
						t.Errorf("error %v", err)
					}
				} else if got := readAll(t, content, err); !bytes.Equal(got, b.Body) {
					t.Errorf("got %d bytes", len(got))
				}
				c.wantCalls(downloadURL, downloadURL)
				l.wantCalls(path(0), path(1))
			})
		}
	}
}

// The layer host does not find what a kept URL names: ECR is asked whether the blob is there, and says so.
func TestKeptURLOfWhatIsGone(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 100))
	for _, deleted := range []bool{true, false} {
		l := newLayers(t, func(w http.ResponseWriter, req *http.Request, n int) {
			if n == 2 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			serveBytes(b.Body)(w, req, n)
		})
		again := l.mint(1)
		if deleted {
			again = step{downloadURL, exc("LayersNotFoundException"), nil}
		}
		c := newControl(t, l.mint(0), again)
		r := c.registry()
		content, err := r.Open(t.Context(), object(b.Desc, registry.Blob), registry.Whole)
		readAll(t, content, err)
		content, err = r.Open(t.Context(), object(b.Desc, registry.Blob), registry.Whole)
		if deleted {
			wantClass(t, err, registry.NotFound, registry.CodeBlobUnknown)
		} else if got := readAll(t, content, err); !bytes.Equal(got, b.Body) {
			t.Errorf("got %d bytes", len(got))
		}
		c.wantCalls(downloadURL, downloadURL)
	}
}

func TestLayerHostAnswers(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 1000))
	for name, tc := range map[string]struct {
		status int
		header map[string]string
		body   string
		class  registry.Class
	}{
		"not there":            {404, nil, "", registry.Unavailable},
		"broken":               {500, nil, "", registry.Unavailable},
		"unavailable":          {503, nil, "", registry.Unavailable},
		"slow down":            {503, nil, "<Error><Code>SlowDown</Code></Error>", registry.Throttled},
		"too many":             {429, map[string]string{"Retry-After": "7"}, "", registry.Throttled},
		"redirect":             {302, map[string]string{"Location": "http://127.0.0.1:1/"}, "", registry.Unavailable},
		"no range":             {206, nil, "x", registry.Unavailable},
		"another range":        {206, map[string]string{"Content-Range": "bytes 0-9/1000"}, "0123456789", registry.Unavailable},
		"a shorter range":      {206, map[string]string{"Content-Range": "bytes 100-101/1000"}, "xx", registry.Unavailable},
		"an unknown size":      {206, map[string]string{"Content-Range": "bytes 100-109/*"}, "0123456789", registry.Unavailable},
		"another length":       {206, map[string]string{"Content-Range": "bytes 100-109/1000"}, "012345", registry.Unavailable},
		"range not to satisfy": {416, map[string]string{"Content-Range": "bytes */50"}, "", registry.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayers(t, func(w http.ResponseWriter, _ *http.Request, _ int) {
				for k, v := range tc.header {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			})
			_, err := newControl(t, l.mint(0)).registry().Open(t.Context(), object(b.Desc, registry.Blob), registry.Range{Offset: 100, Length: 10})
			wantClass(t, err, tc.class, "")
			l.wantCalls(path(0) + " bytes=100-109")
		})
	}
}

// A body that ends early, by a cut or by a close, is an error and never the end.
func TestLayerEndsEarly(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 100_000))
	for _, rg := range []registry.Range{registry.Whole, {Offset: 10, Length: 90_000}} {
		l := newLayers(t, func(w http.ResponseWriter, req *http.Request, _ int) {
			w.Header().Set("Content-Length", fmt.Sprint(min(uint64(rg.Length), 100_000)))
			if rg.Length > 0 {
				w.Header().Set("Content-Range", "bytes 10-90009/100000")
				w.WriteHeader(206)
			}
			w.Write(b.Body[:50_000])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		c, err := newControl(t, l.mint(0)).registry().Open(t.Context(), object(b.Desc, registry.Blob), rg)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		c.Close()
		wantClass(t, err, registry.Unavailable, "")
		if len(got) != 50_000 || strings.Contains(fmt.Sprint(err), "topsecret") {
			t.Errorf("%d bytes, then %v", len(got), err)
		}
	}
}

// pipe answers with a body that the test writes.
type pipe struct{ body io.ReadCloser }

func (p pipe) RoundTrip(req *http.Request) (*http.Response, error) {
	go func() { // as a transport does: the end of the context ends the body
		<-req.Context().Done()
		p.body.(*io.PipeReader).CloseWithError(context.Cause(req.Context()))
	}()
	return &http.Response{StatusCode: 200, ContentLength: 10, Body: p.body, Request: req, Header: http.Header{}}, nil
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		r, err := New(t.Context(), Options{Host: host, AWS: fixedAWS(), HTTPClient: &http.Client{Transport: pipe{pr}}})
		if err != nil {
			t.Fatal(err)
		}
		b := registrytest.NewBlob("x", registrytest.Bytes(1, 10))
		o := object(b.Desc, registry.Blob)
		r.urls.put(o, layerURL{"https://layers.example/x", time.Now().Add(time.Hour), time.Now().Add(time.Hour)})
		c, err := r.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go pw.Write(b.Body[:5])
		time.Sleep(time.Hour) // a reader that is slow is not a stall
		if n, err := io.ReadFull(c, make([]byte, 5)); n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		start := time.Now()
		_, err = c.Read(make([]byte, 5))
		wantClass(t, err, registry.Unavailable, "")
		if d := time.Since(start); d != 20*time.Second || !strings.Contains(err.Error(), "stalled") {
			t.Errorf("%v after %v", err, d)
		}
	})
}

// A layer host that answers and then says nothing more is given up: within the reason of a refusal, and within the end that
// Close looks for.
func TestStallAroundTheBody(t *testing.T) {
	for _, tc := range []struct {
		status int
		body   string
		class  registry.Class
	}{{403, "", registry.Denied}, {503, "", registry.Unavailable}, {500, "", registry.Unavailable}, {206, "0123456789", registry.Internal}} {
		synctest.Test(t, func(t *testing.T) {
			host := hush{tc.status, tc.body}
			r, err := New(t.Context(), Options{Host: "111122223333.dkr.ecr.us-west-2.amazonaws.com", AWS: fixedAWS(), HTTPClient: &http.Client{Transport: host}})
			if err != nil {
				t.Fatal(err)
			}
			o := object(registrytest.NewBlob("x", registrytest.Bytes(1, 100)).Desc, registry.Blob)
			u := layerURL{"https://layers.example/x", time.Now().Add(time.Hour), time.Now().Add(time.Hour)}
			r.urls.put(o, u)
			start := time.Now()
			c, err := r.get(t.Context(), o, u, registry.Range{Offset: 0, Length: 10})
			if err == nil {
				readAll(t, c, nil)
			} else if registry.ClassOf(err) != tc.class {
				t.Errorf("%d: %v, want %v", tc.status, err, tc.class)
			}
			if d := time.Since(start); d != 20*time.Second {
				t.Errorf("%d: ended after %v", tc.status, d)
			}
		})
	}
}

// hush answers with a body that never ends.
type hush struct {
	status int
	body   string
}

func (h hush) RoundTrip(req *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	context.AfterFunc(req.Context(), func() { pr.CloseWithError(context.Cause(req.Context())) })
	go pw.Write([]byte(h.body))
	header := http.Header{"Content-Range": {"bytes 0-9/100"}}
	return &http.Response{StatusCode: h.status, Status: http.StatusText(h.status), ContentLength: -1, Body: pr, Request: req, Header: header}, nil
}

func TestConcurrentOpensShareOneURL(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 5000))
	l := newLayers(t, serveBytes(b.Body))
	c := newControl(t, l.mint(0))
	r := c.registry()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			content, err := r.Open(t.Context(), object(b.Desc, registry.Blob), registry.Range{Offset: int64(i * 100), Length: 100})
			if err != nil {
				t.Error(err)
				return
			}
			defer content.Close()
			if got, err := io.ReadAll(content); err != nil || !bytes.Equal(got, b.Body[i*100:i*100+100]) {
				t.Errorf("range %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	c.wantCalls(downloadURL)
}

func TestLocateRenewsEarly(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 5))
	now := time.Now().UTC()
	mint := func(age time.Duration) step {
		return step{downloadURL, ok(fields{"downloadUrl": "https://l.example/x?X-Amz-Expires=1000&X-Amz-Date=" + now.Add(-age).Format("20060102T150405Z")}), nil}
	}
	c := newControl(t, mint(850*time.Second), mint(700*time.Second))
	r := c.registry()
	for range 3 { // the first is past four fifths of its life: used, but not again
		u, expires, err := r.Locate(t.Context(), object(b.Desc, registry.Blob))
		if err != nil || !strings.HasPrefix(u, "https://l.example/x") || expires.Before(now) {
			t.Errorf("got %q, %v, %v", u, expires, err)
		}
	}
	c.wantCalls(downloadURL, downloadURL)
	_, _, err := r.Locate(t.Context(), object(b.Desc, registry.Manifest))
	wantClass(t, err, registry.Invalid, "")
}

func TestLayerURLs(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"https://b.s3.us-west-2.amazonaws.com/x?X-Amz-Expires=600&X-Amz-Date=20260102T030405Z": 600 * time.Second,
		"https://b.s3.us-west-2.amazonaws.com/x?X-Amz-Expires=600&X-Amz-Date=20260102T030305Z": 540 * time.Second,
		"https://b.s3.us-west-2.amazonaws.com/x?X-Amz-Expires=600&X-Amz-Date=20260103T030405Z": 600 * time.Second,
		"https://b.s3.us-west-2.amazonaws.com/x?X-Amz-Expires=-5":                              time.Hour,
		"https://b.s3.us-west-2.amazonaws.com/x":                                               time.Hour,
		"http://127.0.0.1:9/x":                                                                 time.Hour,
		"http://[::1]:9/x":                                                                     time.Hour,
		"http://localhost/x":                                                                   time.Hour,
	} {
		if u, err := parseLayerURL(s, now); err != nil || u.expires.Sub(now) != want {
			t.Errorf("%s: %v, %v; want %v", s, u.expires.Sub(now), err, want)
		}
	}
	for _, s := range []string{"", "x", "/x", "http://example.com/x", "ftp://127.0.0.1/x", "https://u:p@example.com/x", "https:///x",
		"http://127.0.0.1.example.com/", "http://169.254.169.254/latest", "\x00"} {
		if u, err := parseLayerURL(s, now); err == nil {
			t.Errorf("%q: accepted as %v", s, u)
		}
	}
}

func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-9/10", "bytes 5-4/10", "bytes */10", "bytes 0-9/*", "bytes -1-9/10", "", "bytes 0-99999999999999999999/1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, b, n, ok := contentRange(s); ok && !(0 <= a && a <= b && b < n) {
			t.Errorf("%q: %d-%d/%d", s, a, b, n)
		}
	})
}
