package serve

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	// urlLife is what a URL has to live on for a client to be sent there: a download only begins while it is good.
	urlLife = time.Minute
	// locateTimeout is for the Locator; the blob can be had without it.
	locateTimeout = time.Second
)

// redirect sends the client of a GET to the blob's own URL, if the mirror has a Locator and nothing leaks by it. false: the
// blob is served from here, as if there were no Locator: it does not know the blob, does not answer, or is not to be used.
func (x *exchange) redirect(o registry.Object) bool {
	if x.mirror.Locator == nil || !private(x.r) || !plainHeaders(x.r.Header) {
		return false
	}
	ctx, cancel := context.WithTimeout(x.ctx, min(locateTimeout, x.patience()))
	defer cancel()
	location, expires, err := x.mirror.Locator.Locate(ctx, o)
	if err != nil || time.Until(expires) < urlLife || !safe(location) {
		return false
	}
	x.trace.SetTier("redirect")
	x.identify(registry.Descriptor{Digest: o.Digest})
	h := x.w.Header()
	h.Set("Location", location)
	h.Set("Cache-Control", "no-store") // whoever has the URL may read the blob until it expires
	h.Set("Content-Length", "0")
	x.status = http.StatusTemporaryRedirect
	x.w.WriteHeader(x.status)
	return true
}

// private reports whether nobody else reads the answer, which holds a URL that is good for whoever has it: the connection is
// TLS, or does not leave the machine.
func private(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// carried are headers that say nothing secret, or that clients do not carry to another host (Authorization).
var carried = map[string]bool{"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Authorization": true, "Cache-Control": true,
	"Connection": true, "Content-Length": true, "Docker-Distribution-Api-Version": true, "Forwarded": true, "If-Range": true, "Pragma": true, "Range": true,
	"Referer": true, "Te": true, "Traceparent": true, "Tracestate": true, "User-Agent": true, "Via": true}

// plainHeaders reports whether a client that follows a redirect takes no secret along: containerd sends the headers of its
// hosts.toml to wherever it is sent, but for Authorization, and people put secrets there.
func plainHeaders(h http.Header) bool {
	for name := range h {
		if !carried[name] && !strings.HasPrefix(name, "X-Forwarded-") {
			return false
		}
	}
	return true
}

// safe reports whether a URL may be given out: HTTPS, but on loopback, where emulators live.
func safe(location string) bool {
	u, err := url.Parse(location)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Scheme == "http" && err == nil && addr.IsLoopback()
}
