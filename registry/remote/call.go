package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// call is one request to the registry's host, or to one that it named.
type call struct {
	method    string
	path      string   // path and query; or
	url       *url.URL // one that the registry named, on its own origin unless it is
	elsewhere bool     // where no credential goes
	scopes    []string // of a bearer token
	accept    []string
	rng       string
	ctype     string
	body      io.Reader // of size bytes; an *upload has its own patience
	size      int64
}

func pull(repo string) []string { return []string{auth.ScopeRepository(repo, auth.ActionPull)} }

func push(repo string) []string {
	return []string{auth.ScopeRepository(repo, auth.ActionPull, auth.ActionPush)}
}

// do sends c. The caller closes the response's body, whose reads fail when it stalls or breaks.
func (r *Registry) do(ctx context.Context, c call) (*http.Response, error) {
	u := c.url
	if u == nil {
		var err error
		if u, err = r.base.Parse(c.path); err != nil {
			return nil, registry.Errorf(registry.Invalid, "path: %w", err)
		}
	}
	if r.ns != "" && !c.elsewhere {
		named := *u
		q := named.Query()
		q.Set("ns", r.ns)
		named.RawQuery = q.Encode()
		u = &named
	}
	ctx, cancel := context.WithCancelCause(ctx)
	silent := registry.Errorf(registry.Unavailable, "no answer in time")
	timer := time.AfterFunc(r.timeout, func() { cancel(silent) })
	var body io.Reader = c.body
	up, ok := c.body.(*upload)
	if ok {
		up.alive = func(d time.Duration) { timer.Reset(d) }
	}
	req, err := http.NewRequestWithContext(auth.WithScopesForHost(ctx, r.base.Host, c.scopes...), c.method, u.String(), body)
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, registry.Errorf(registry.Invalid, "request: %w", err)
	}
	if body != nil {
		req.ContentLength = c.size
		if c.size == 0 {
			req.Body = http.NoBody
		}
	}
	req.Header.Set("Accept-Encoding", "identity")
	for k, v := range map[string]string{"Range": c.rng, "Content-Type": c.ctype, "Accept": strings.Join(c.accept, ", ")} {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	send := r.auth.Do
	if c.elsewhere {
		req.Header.Set("User-Agent", r.auth.Header.Get("User-Agent"))
		send = (&http.Client{Transport: r.transport, CheckRedirect: checkRedirect}).Do
	}
	resp, err := send(req)
	if up != nil {
		up.detach()
	}
	if !timer.Stop() && err == nil { // it fired just now, and takes the body with it
		resp.Body.Close()
		err = silent
	}
	if err != nil {
		err = classify(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &respBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timeout: r.timeout}
	return resp, nil
}

// expect is do for answers with one of the given statuses; others become errors.
func (r *Registry) expect(ctx context.Context, c call, statuses ...int) (*http.Response, error) {
	resp, err := r.do(ctx, c)
	if err == nil {
		err = r.accept(resp, statuses...)
	}
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// accept closes a response with a status that is none of the given ones, and returns what that means.
func (r *Registry) accept(resp *http.Response, statuses ...int) error {
	if slices.Contains(statuses, resp.StatusCode) {
		return nil
	}
	defer resp.Body.Close()
	err := wire.DecodeError(resp)
	if !sameOrigin(resp.Request.URL, r.base) {
		// A store that the registry sent us to: its refusal (an expired URL, an object not there yet) is not the registry's word
		// on whether the content exists or who may read it.
		switch registry.ClassOf(err) {
		case registry.Throttled, registry.Unavailable:
		case registry.Invalid:
			if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
				break
			}
			fallthrough
		default:
			err = &refusal{registry.Errorf(registry.Unavailable, "%s: %v", resp.Request.URL.Host, err)}
		}
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		err = &unsatisfied{err, resp.Header.Get("Content-Range")}
	}
	return err
}

// refusal is what a store says that no longer knows the URL or never did.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

// unsatisfied is a 416 with what its Content-Range says.
type unsatisfied struct {
	error
	contentRange string
}

func (u *unsatisfied) Unwrap() error { return u.error }

// classify turns an error of the HTTP or the authentication client into one with a class, and drops URLs' queries from its
// text: those of redirects may be presigned.
func classify(ctx context.Context, err error) error {
	var own *registry.Error
	var token *errcode.ErrorResponse
	var transport *url.Error
	switch {
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); errors.As(cause, &own) {
			return cause
		}
		return registry.Errorf(registry.Unavailable, "%w", context.Cause(ctx))
	case errors.As(err, &own):
		return fmt.Errorf("%w", own)
	case errors.As(err, &token):
		class := registry.Unavailable
		switch token.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusBadRequest, http.StatusNotFound:
			class = registry.Denied // asked for a token, "who are you" has several spellings
		case http.StatusTooManyRequests:
			class = registry.Throttled
		}
		return registry.Errorf(class, "token of %s: %d %s", token.URL.Host, token.StatusCode, http.StatusText(token.StatusCode))
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return registry.Errorf(registry.Denied, "authentication is required")
	case errors.As(err, &transport):
		return registry.Errorf(registry.Unavailable, "%w", transport.Err)
	}
	return registry.Errorf(registry.Unavailable, "authentication: %w", err)
}

// checkRedirect lets reads be sent elsewhere, at most 5 times, never from https to http. That no credential goes along to
// another origin is auth.Client's doing (and TestRedirect's).
func checkRedirect(req *http.Request, via []*http.Request) error {
	from := via[len(via)-1]
	switch {
	case len(via) > 5:
		return registry.Errorf(registry.Unavailable, "more than 5 redirects")
	case req.URL.Scheme != "https" && req.URL.Scheme != "http", req.URL.User != nil:
		return registry.Errorf(registry.Unavailable, "redirect to %s: refused", req.URL.Host)
	case from.URL.Scheme == "https" && req.URL.Scheme == "http" && !loopback(req.URL.Hostname()):
		return registry.Errorf(registry.Unavailable, "redirect to http://%s: refused, it leaves https", req.URL.Host)
	case from.Method != http.MethodGet && from.Method != http.MethodHead:
		return http.ErrUseLastResponse // what is pushed here stays here
	case req.Context().Value(stayHere{}) != nil && !sameOrigin(req.URL, via[0].URL):
		return http.ErrUseLastResponse // see ask
	}
	req.Header.Del("Referer")
	return nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
}

// respBody is a response body that fails when no byte arrives for timeout. Time between reads is the reader's own.
type respBody struct {
	io.ReadCloser
	ctx     context.Context // the request's: ends when the caller's does, or by cancel
	cancel  context.CancelCauseFunc
	timeout time.Duration
}

func (b *respBody) Read(p []byte) (int, error) {
	timer := time.AfterFunc(b.timeout, func() {
		b.cancel(registry.Errorf(registry.Unavailable, "no byte for %v", b.timeout))
	})
	n, err := b.ReadCloser.Read(p)
	timer.Stop()
	if err != nil && err != io.EOF {
		err = classify(b.ctx, &url.Error{Op: "read", Err: err})
	}
	return n, err
}

func (b *respBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// readAll reads a small body, of at most limit bytes.
func readAll(resp *http.Response, limit int64) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, registry.Errorf(registry.Invalid, "%d bytes, more than %d", resp.ContentLength, limit)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, registry.Errorf(registry.Invalid, "more than %d bytes", limit)
	}
	return b, err
}
