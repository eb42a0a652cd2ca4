package remote

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

const (
	redirectEntries = 4096
	unknownLife     = time.Minute // of a redirect that does not say how long it holds
)

// redirects remembers where the bytes of blobs are, so that a blob read in many ranges costs the registry one redirect.
type redirects struct {
	kept   *lru.Cache[registry.Object, redirect]
	asking singleflight.Group
}

// redirect is a presigned URL, or nil when the registry itself sends the bytes. Never logged: whoever has it may read the
// blob until it expires.
type redirect struct {
	url   *url.URL
	renew time.Time
}

func newRedirects() *redirects {
	kept, err := lru.New[registry.Object, redirect](redirectEntries)
	if err != nil {
		panic(err) // unreachable: the size is positive
	}
	return &redirects{kept: kept}
}

// get returns where o is unless it is time to ask again.
func (s *redirects) get(o registry.Object) (redirect, bool) {
	to, ok := s.kept.Get(o)
	return to, ok && time.Now().Before(to.renew)
}

// forget drops to, but not a newer one that somebody else has fetched since.
func (s *redirects) forget(o registry.Object, to redirect) {
	if now, ok := s.kept.Peek(o); ok && now.url == to.url {
		s.kept.Remove(o)
	}
}

// getBlob answers a GET of o. A URL known from an earlier answer is used until its time is over or it is refused, for then
// it may have expired.
func (r *Registry) getBlob(ctx context.Context, o registry.Object, rng string) (*http.Response, error) {
	for again := false; ; again = true {
		resp, to, known, err := r.locate(ctx, o, rng)
		if err != nil || resp != nil {
			return resp, err
		}
		resp, err = r.do(ctx, call{method: http.MethodGet, url: to.url, elsewhere: true, rng: rng})
		if err != nil {
			if ctx.Err() == nil {
				r.redirects.forget(o, to) // that host may be gone
			}
			return nil, err
		}
		err = r.accept(resp, http.StatusOK, http.StatusPartialContent)
		if err == nil {
			return resp, nil
		}
		var refused *refusal
		if errors.As(err, &refused) {
			if r.redirects.forget(o, to); known && !again {
				continue
			}
		}
		return nil, err
	}
}

// locate returns where o is, or the registry's own answer if that is where. known says that it is from an earlier answer.
// Those who ask at the same time ask once.
func (r *Registry) locate(ctx context.Context, o registry.Object, rng string) (resp *http.Response, to redirect, known bool, err error) {
	for ctx.Err() == nil {
		to, ok := r.redirects.get(o)
		switch {
		case ok && to.url != nil:
			return nil, to, true, nil
		case ok:
			resp, to, err = r.ask(ctx, o, rng)
			return resp, to, false, err
		}
		var own *http.Response // if it is this call that asks
		answer := r.redirects.asking.DoChan(o.String(), func() (any, error) {
			if to, ok := r.redirects.get(o); ok { // by a call that ended between the look above and this one
				return to, nil
			}
			resp, to, err := r.ask(ctx, o, rng)
			if ctx.Err() != nil {
				return nil, nil // says nothing to those who are still there
			}
			own = resp
			return to, err
		})
		select {
		case <-ctx.Done():
		case a := <-answer:
			to, ok := a.Val.(redirect)
			if a.Err != nil || ok && (to.url != nil || own != nil) {
				return own, to, false, a.Err
			}
		}
	}
	return nil, redirect{}, false, registry.Errorf(registry.Unavailable, "%w", context.Cause(ctx))
}

// ask sends a GET of o to the registry and keeps where that points.
func (r *Registry) ask(ctx context.Context, o registry.Object, rng string) (*http.Response, redirect, error) {
	resp, err := r.expect(context.WithValue(ctx, stayHere{}, true), call{method: http.MethodGet, path: path(o), scopes: pull(o.Repo), rng: rng},
		http.StatusOK, http.StatusPartialContent, http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect)
	if err != nil {
		return nil, redirect{}, err
	}
	to := redirect{renew: time.Now().Add(unknownLife)}
	if resp.StatusCode >= http.StatusMultipleChoices {
		_, _ = io.CopyN(io.Discard, resp.Body, maxRedirectBody) // so that the connection can be used again
		resp.Body.Close()
		if to.url, err = resp.Location(); err != nil { // checkRedirect has accepted it
			return nil, redirect{}, registry.Errorf(registry.Unavailable, "redirect: %w", err)
		}
		if from, life, ok := wire.PresignedLife(to.url, time.Now()); ok {
			to.renew = from.Add(life * 4 / 5)
		}
		resp = nil
	}
	r.redirects.kept.Add(o, to)
	return resp, to, nil
}

const maxRedirectBody = 16 << 10 // a page for people

// stayHere marks the context of a request that ends with the redirect to another origin, which its caller follows.
type stayHere struct{}
