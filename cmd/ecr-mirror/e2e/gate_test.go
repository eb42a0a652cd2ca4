package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// gate is a reverse proxy in front of a registry that stops traffic at a chosen point until it is opened.
type gate struct {
	addr string
	sent atomic.Int64 // bytes of blobs that the registry sent

	holdUpload bool  // hold every upload of a blob before its bytes
	holdFrom   int64 // hold the bytes of large blobs from this offset on; 0: never
	held       chan struct{}
	opened     chan struct{}
	first, end sync.Once
	srv        *httptest.Server
}

const largeBlob = 1 << 20 // bytes; smaller blobs pass a gate

func newGate(t *testing.T, registry string, g *gate) *gate {
	t.Helper()
	g.held, g.opened = make(chan struct{}), make(chan struct{})
	target := &url.URL{Scheme: "http", Host: registry}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the registry's Location headers lead back here
		},
		ModifyResponse: g.body,
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g.holdUpload && strings.Contains(r.URL.Path, "/blobs/uploads/") {
			g.wait(r.Context())
		}
		proxy.ServeHTTP(w, r)
	}))
	g.srv = srv
	t.Cleanup(func() {
		g.open()
		srv.Close()
	})
	g.addr = strings.TrimPrefix(srv.URL, "http://")
	return g
}

// close is the end of the registry behind it, as far as anybody sees.
func (g *gate) close() {
	g.open()
	g.srv.CloseClientConnections()
	g.srv.Close()
}

// open lets everything through from now on.
func (g *gate) open() { g.end.Do(func() { close(g.opened) }) }

func (g *gate) wait(ctx context.Context) {
	select {
	case <-g.opened:
		return
	default:
	}
	g.first.Do(func() { close(g.held) })
	select {
	case <-g.opened:
	case <-ctx.Done():
	}
}

func (g *gate) body(res *http.Response) error {
	if res.Request.Method != http.MethodGet || !strings.Contains(res.Request.URL.Path, "/blobs/sha256:") {
		return nil
	}
	at, size := int64(0), res.ContentLength
	if _, err := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-", &at); err != nil {
		at = 0 // the whole blob
	} else if _, total, ok := strings.Cut(res.Header.Get("Content-Range"), "/"); ok {
		if _, err := fmt.Sscan(total, &size); err != nil {
			return err
		}
	}
	res.Body = &gatedBody{ReadCloser: res.Body, g: g, ctx: res.Request.Context(), at: at, hold: g.holdFrom > 0 && size >= largeBlob}
	return nil
}

type gatedBody struct {
	io.ReadCloser
	g    *gate
	ctx  context.Context
	at   int64 // offset in the blob
	hold bool
}

func (b *gatedBody) Read(p []byte) (int, error) {
	if rest := b.g.holdFrom - b.at; b.hold && rest <= 0 {
		b.g.wait(b.ctx)
	} else if b.hold && int64(len(p)) > rest {
		p = p[:rest]
	}
	n, err := b.ReadCloser.Read(p)
	b.at += int64(n)
	b.g.sent.Add(int64(n))
	return n, err
}
