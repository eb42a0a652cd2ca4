package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
)

// interposer is a reverse proxy that counts what it is asked for blobs, and does something to the first large one.
type interposer struct {
	addr  string
	blobs atomic.Int64 // GETs of blobs
	acted atomic.Bool

	stalled chan struct{} // closed when it sends no more
}

// act is what an interposer does half-way through the first large blob.
type act int

const (
	pass  act = iota
	cut       // close the connection early
	stall     // send no more
)

func interpose(t *testing.T, addr string, do act) *interposer {
	t.Helper()
	i := &interposer{stalled: make(chan struct{})}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(res *http.Response) error {
			if res.Request.Method != http.MethodGet || !strings.Contains(res.Request.URL.Path, "/blobs/sha256:") {
				return nil
			}
			i.blobs.Add(1)
			if do != pass && res.ContentLength >= largeBlob && i.acted.CompareAndSwap(false, true) {
				res.Body = &broken{res.Body, i, res.Request.Context(), do, res.ContentLength / 2}
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	i.addr = strings.TrimPrefix(srv.URL, "http://")
	return i
}

// broken is a body that ends after left bytes: with an error, at which the proxy closes the connection, or never.
type broken struct {
	io.ReadCloser
	i    *interposer
	ctx  context.Context
	do   act
	left int64
}

func (b *broken) Read(p []byte) (int, error) {
	if b.left == 0 && b.do == cut {
		return 0, errors.New("cut on purpose")
	}
	if b.left == 0 { // once: this is the only body that stalls, and it ends here
		close(b.i.stalled)
		<-b.ctx.Done()
		return 0, b.ctx.Err()
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
