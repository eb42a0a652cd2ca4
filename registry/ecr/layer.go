package ecr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// layerClient returns a client for layer hosts. HTTP/1.1 only: parallel ranges of one layer must not share a connection.
func layerClient() *http.Client {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  20 * time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    64,
		DisableCompression:     true,
		Protocols:              p,
		MaxResponseHeaderBytes: 64 << 10,
		ReadBufferSize:         64 << 10,
	}}
}

func withoutRedirects(c *http.Client) *http.Client {
	own := *c
	own.Jar = nil
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

// openLayer opens o at its presigned URL. A URL that the layer host refuses is forgotten and asked for once more: it may
// have expired, or the credentials that signed it (SOCI snapshotter, service/resolver: 403 "Request has expired", 400
// ExpiredToken). So is a kept one of what is not there: ECR knows whether it still is.
func (r *Registry) openLayer(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	for attempt := 0; ; attempt++ {
		_, kept := r.urls.get(o)
		u, err := r.locate(ctx, o)
		if err != nil {
			return nil, err
		}
		c, err := r.get(ctx, o, u, rg)
		var stale *refusedURL
		if !errors.As(err, &stale) || stale.gone && !kept || attempt == 1 {
			return c, err
		}
		r.urls.forget(o, u)
	}
}

// refusedURL is a 400, 403 or (gone) 404 of the layer host.
type refusedURL struct {
	status, code string
	gone         bool
}

func (e *refusedURL) Error() string {
	if e.gone {
		return "layer host: " + e.status
	}
	return fmt.Sprintf("layer host: %s %s (is a VPC endpoint policy for S3 in the way?)", e.status, e.code)
}

func (r *Registry) get(ctx context.Context, o registry.Object, u layerURL, rg registry.Range) (*registry.Content, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, err := r.getLayer(ctx, cancel, o, u, rg)
	if err != nil {
		cancel(err)
	}
	return c, err
}

func (r *Registry) getLayer(ctx context.Context, cancel context.CancelCauseFunc, o registry.Object, u layerURL, rg registry.Range) (*registry.Content, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url, nil)
	if err != nil {
		return nil, registry.Errorf(registry.Unavailable, "layer URL: not usable")
	}
	req.Header.Set("Accept-Encoding", "identity")
	ranged := rg.Offset > 0 || rg.Length >= 0
	if ranged {
		req.Header.Set("Range", rangeHeader(rg))
	}
	// A layer host that neither answers nor fails is given up after the same time as one that stops sending. An answer's
	// reason is a part of it.
	stall := time.AfterFunc(r.stall, func() { cancel(errStalled) })
	resp, err := r.layers.Do(req)
	defer stall.Stop()
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, &registry.Error{Class: registry.Unavailable, Err: fmt.Errorf("layer host %s: %w", req.URL.Host, withoutURL(err))}
	}
	c, skip, err := layerContent(o, resp, rg, ranged)
	if err != nil {
		io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
		resp.Body.Close()
		return nil, err
	}
	stall.Stop() // the body has its own
	c.From, c.Host = r, resp.Request.URL.Host
	body := &layerBody{ctx: ctx, cancel: cancel, body: resp.Body, left: c.Range.Length, stall: r.stall}
	c.ReadCloser = body
	if err := body.skip(skip); err != nil {
		body.Close()
		return nil, err
	}
	return c, nil
}

// rangeHeader asks for at least one byte: an empty range cannot be said in HTTP, and the answer tells the size.
func rangeHeader(rg registry.Range) string {
	s := "bytes=" + strconv.FormatInt(rg.Offset, 10) + "-"
	if rg.Length >= 0 {
		last := rg.Offset + max(rg.Length, 1) - 1
		if last < rg.Offset { // overflow: to the end
			return s
		}
		s += strconv.FormatInt(last, 10)
	}
	return s
}

// layerContent reads the head of a layer host's answer; skip is how many bytes to drop before the range starts.
func layerContent(o registry.Object, resp *http.Response, rg registry.Range, ranged bool) (c *registry.Content, skip int64, err error) {
	c = &registry.Content{Descriptor: registry.Descriptor{MediaType: blobMediaType, Digest: o.Digest}}
	fail := func(class registry.Class, format string, args ...any) (*registry.Content, int64, error) {
		return nil, 0, registry.Errorf(class, "layer host: "+format, args...)
	}
	switch s := resp.StatusCode; {
	case s == http.StatusOK && resp.ContentLength >= 0:
		c.Descriptor.Size = resp.ContentLength
		skip, c.Sequential = rg.Offset, ranged
	case s == http.StatusPartialContent && ranged:
		start, end, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || start != rg.Offset || resp.ContentLength >= 0 && resp.ContentLength != end-start+1 {
			return fail(registry.Unavailable, "206 with Content-Range %.100q for %q", resp.Header.Get("Content-Range"), rangeHeader(rg))
		}
		c.Descriptor.Size = size
		if want, _ := rg.Clip(size); end-start+1 < want.Length {
			return fail(registry.Unavailable, "206 with %d of %d bytes", end-start+1, want.Length)
		}
	case s == http.StatusRequestedRangeNotSatisfiable:
		if resp.Header.Get("Content-Range") == "bytes */0" && rg.Offset == 0 {
			break // an empty blob, whole
		}
		return fail(registry.Invalid, "range at %d outside the blob", rg.Offset)
	case s == http.StatusBadRequest, s == http.StatusForbidden:
		return nil, 0, &registry.Error{Class: registry.Denied, Code: codeDenied, Err: &refusedURL{status: resp.Status, code: errorCode(resp.Body)}}
	case s == http.StatusNotFound: // ECR said that the layer is there
		return nil, 0, &registry.Error{Class: registry.Unavailable, Err: &refusedURL{status: resp.Status, gone: true}}
	case s == http.StatusTooManyRequests, s == http.StatusServiceUnavailable:
		class, code := registry.Unavailable, errorCode(resp.Body)
		if s == http.StatusTooManyRequests || code == `"SlowDown"` { // S3 API reference, "Error responses"
			class = registry.Throttled
		}
		return nil, 0, &registry.Error{Class: class, RetryAfter: retryAfter(resp.Header), Err: fmt.Errorf("layer host: %s %s", resp.Status, code)}
	default:
		return fail(registry.Unavailable, "%s", resp.Status)
	}
	clipped, ok := rg.Clip(c.Descriptor.Size)
	if !ok {
		return fail(registry.Invalid, "range outside its %d bytes", c.Descriptor.Size)
	}
	c.Range = clipped
	return c, skip, nil
}

// contentRange parses "bytes first-last/size" (RFC 9110, section 14.4); an unknown size is not usable here.
func contentRange(s string) (first, last, size int64, ok bool) {
	s, ok1 := strings.CutPrefix(s, "bytes ")
	run, total, ok2 := strings.Cut(s, "/")
	a, b, ok3 := strings.Cut(run, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	size, err3 := strconv.ParseInt(total, 10, 64)
	ok = ok1 && ok2 && ok3 && err1 == nil && err2 == nil && err3 == nil && 0 <= first && first <= last && last < size
	return first, last, size, ok
}

// errorCode returns the <Code> of S3's XML error body, if it is one. The rest may hold secrets of the URL.
func errorCode(body io.Reader) string {
	b, err := io.ReadAll(io.LimitReader(body, 8<<10))
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(b), "<Code>")
	code, _, ok2 := strings.Cut(rest, "</Code>")
	if !ok || !ok2 || len(code) > 64 {
		return ""
	}
	return strconv.Quote(code)
}

// withoutURL drops the presigned URL that net/http prints with its errors.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
