package admin

import (
	"log/slog"
	"net"
	"net/http"
	"slices"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// guard decides who may change something, or ask for what costs many calls. Without a login that is this very host; with one it is
// whoever logs in, on this host too: behind a proxy on it everybody would be this host.
type guard struct {
	login serve.Authenticator // nil: only this host
	cross *http.CrossOriginProtection
	tries *tries
	turn  chan struct{} // one login is looked at at a time: a hash costs as much as pulls do
	log   *slog.Logger
}

func newGuard(login serve.Authenticator, log *slog.Logger) *guard {
	return &guard{login, http.NewCrossOriginProtection(), newTries(), make(chan struct{}, 1), log}
}

// refusal is why a request may not.
type refusal struct {
	status int
	why    string
}

// only has h answer those who may.
func (g *guard) only(h http.Handler) http.Handler { return answering(h, g.refuses) }

// direct has h answer everybody but pages of another origin.
func (g *guard) direct(h http.Handler) http.Handler { return answering(h, g.foreign) }

func answering(h http.Handler, refuses func(*http.Request) *refusal) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		no := refuses(r)
		if no == nil {
			h.ServeHTTP(w, r)
			return
		}
		switch no.status {
		case http.StatusUnauthorized:
			w.Header().Set("WWW-Authenticate", `Basic realm="ecr-mirror admin", charset="UTF-8"`)
		case http.StatusTooManyRequests:
			w.Header().Set("Retry-After", tryEvery)
		}
		http.Error(w, no.why, no.status)
	})
}

// refuses returns nil if r may. A browser sends what a page of another origin makes it send, with its user's credentials; and a
// name of elsewhere can be made to resolve to loopback.
func (g *guard) refuses(r *http.Request) *refusal {
	if no := g.foreign(r); no != nil {
		return no
	}
	return g.knows(r)
}

// foreign returns nil unless a page of another origin asks.
func (g *guard) foreign(r *http.Request) *refusal {
	site := r.Header.Get("Sec-Fetch-Site")
	if g.cross.Check(r) != nil || site != "" && site != "same-origin" && site != "none" {
		return &refusal{http.StatusForbidden, "not from a page of another origin"}
	}
	return nil
}

// knows returns nil if it is this host, or who has logged in.
func (g *guard) knows(r *http.Request) *refusal {
	if g.login != nil {
		return g.loggedIn(r)
	}
	if !loopback(r.RemoteAddr) || !loopback(r.Host) || proxied(r.Header) {
		return &refusal{http.StatusForbidden, "only from this host, by a loopback address and no proxy, as long as adminAuth has no htpasswd: ask where the mirror runs"}
	}
	return nil
}

func (g *guard) loggedIn(r *http.Request) *refusal {
	if _, _, ok := r.BasicAuth(); !ok {
		return &refusal{http.StatusUnauthorized, "log in (commands on this host: ECR_MIRROR_LOGIN or ECR_MIRROR_LOGIN_FILE)"}
	}
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-r.Context().Done():
		return &refusal{http.StatusServiceUnavailable, "too many log in"}
	}
	client := serve.ClientOf(r.RemoteAddr)
	if !g.tries.take(client) { // asked in turn: of many right logins at once each has given its try back before the next
		return &refusal{http.StatusTooManyRequests, "too many wrong logins from this address"}
	}
	err := g.login.Authenticate(r, serve.Access{})
	switch {
	case err == nil:
		g.tries.giveBack(client)
		return nil
	case registry.ClassOf(err) == registry.Denied:
		g.log.WarnContext(r.Context(), "denied", "client", r.RemoteAddr, "endpoint", "admin", "error", err)
		return &refusal{http.StatusUnauthorized, "wrong user or password"}
	}
	return &refusal{http.StatusServiceUnavailable, "nobody can be logged in now"} // the request ended
}

// proxied reports whether a proxy says that it asks for somebody else. One that says nothing, and names this host, looks like a client on it.
func proxied(h http.Header) bool {
	return slices.ContainsFunc([]string{"Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"}, func(name string) bool { return len(h[name]) > 0 })
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}
