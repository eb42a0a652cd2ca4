package e2e

import (
	"context"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// meddle is a reverse proxy to the mirror at addr, which while the storm rages does to answers what networks and broken proxies do.
func (s *storm) meddle(addr string) http.Handler {
	var mu sync.Mutex
	counts := make(map[string]int)
	return &httputil.ReverseProxy{
		FlushInterval: -1,
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Second},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(res *http.Response) error {
			if !s.raging.Load() {
				return nil
			}
			name := res.Request.Method + " " + res.Request.URL.String() + " " + res.Request.Header.Get("Range")
			mu.Lock()
			n := counts[name]
			counts[name]++
			mu.Unlock()
			return meddled(rand.New(rand.NewPCG(s.seed, hash(name+strconv.Itoa(n)))), n, res)
		},
		ErrorLog:     log.New(io.Discard, "", 0),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

var errMeddled = errors.New("cut on purpose")

// meddled does something to one answer in ten, the nth of its request.
func meddled(r *rand.Rand, n int, res *http.Response) error {
	if r.IntN(10) > 0 {
		return nil
	}
	fail := func(status int) error {
		_ = res.Body.Close() // it is not wanted
		res.StatusCode, res.Status = status, ""
		res.Header = http.Header{"Content-Type": {"text/html"}}
		res.Body, res.ContentLength = io.NopCloser(strings.NewReader("<html>no</html>")), 15
		return nil
	}
	at := r.Int64N(max(1, res.ContentLength))
	body := &meddledBody{ReadCloser: res.Body, ctx: res.Request.Context(), left: at}
	switch r.IntN(10) {
	case 0:
		return fail(http.StatusInternalServerError)
	case 1:
		return fail(http.StatusTooManyRequests)
	case 2:
		return fail(http.StatusBadGateway)
	case 3:
		return errMeddled
	case 4:
		time.Sleep(time.Duration(r.IntN(2000)) * time.Millisecond)
		return nil
	case 5:
		if n%2 == 1 { // a lie that is told twice is the truth
			return nil
		}
		res.Header.Set("Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64))
		return nil
	case 6:
		if from := res.Header.Get("Content-Range"); from != "" {
			res.Header.Set("Content-Range", strings.Replace(from, "bytes ", "bytes 1", 1))
		}
		return nil
	case 7:
		body.then = func([]byte) (int, error) { return 0, errMeddled }
	case 8:
		body.then = func(p []byte) (int, error) {
			n, err := body.ReadCloser.Read(p)
			if n > 0 && !body.done {
				body.done = true
				p[0] ^= 0xff
			}
			return n, err
		}
	case 9:
		if r.IntN(5) > 0 {
			return nil
		}
		body.then = func([]byte) (int, error) {
			<-body.ctx.Done()
			return 0, body.ctx.Err()
		}
	}
	res.Body = body
	return nil
}

// meddledBody is what it is for left bytes.
type meddledBody struct {
	io.ReadCloser
	ctx  context.Context
	left int64
	then func([]byte) (int, error)
	done bool
}

func (b *meddledBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return b.then(p)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
