package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

const (
	maxAsking  = 64               // questions to registries at once
	maxOfOne   = maxAsking / 4    // for one client address
	maxWaiting = 256              // of one client address, asked or waiting
	askTimeout = 10 * time.Second // for an answer; the client may leave earlier
)

// ECRRegistry is an ECR registry that can tell who may read it.
type ECRRegistry struct {
	Host string // as clients name it
	URL  string // where it is asked: https://HOST, or http://… where the configuration allows that
	// Repo is the name there of a repository that the client names; "" if it has none. nil: the same.
	Repo func(repo string) string
}

// ECRAuthOptions are what NewECRAuth needs.
type ECRAuthOptions struct {
	// Registries are the mirror's own. A client that names one of them has a token for it. Any other client, which names the
	// mirror itself or an alias, has one of its own region: that of the first.
	Registries []ECRRegistry
	// Known lets a token that had a yes pass while nobody can confirm it, until it expires; else it is Unavailable.
	Known     bool
	Transport http.RoundTripper // nil: one made here; it must not follow redirects
}

// ECRAuth lets in whoever has an ECR token (user AWS) with which the registry itself gives out what is asked for: the very
// same request is sent there, and its content let go. A token goes to one registry, over no redirect, and is not kept: a yes
// is remembered for five minutes by a keyed hash of token, registry, repository and kind of content, a no for ten seconds.
//
// Limitations: a yes outlives a permission that was taken away by five minutes. A token for another registry than the one
// that is asked, such as one of another region, is refused. A repository that the asked registry lacks is 404, though the
// mirror's other registry may have it.
type ECRAuth struct {
	hosts   map[string]ECRRegistry
	first   string // host
	known   bool
	client  *http.Client
	answers *answers
	flights singleflight.Group
	asking  *turns
	results *prometheus.CounterVec
}

// NewECRAuth returns the Authenticator without asking anybody.
func NewECRAuth(name string, o ECRAuthOptions) *ECRAuth {
	if o.Transport == nil {
		o.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 16, MaxConnsPerHost: maxAsking, IdleConnTimeout: 90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true}
	}
	e := &ECRAuth{hosts: make(map[string]ECRRegistry), known: o.Known, answers: newAnswers(), asking: newTurns(maxAsking, maxOfOne, maxWaiting),
		client: &http.Client{Transport: o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_token_checks_total", ConstLabels: prometheus.Labels{"mirror": name},
			Help: "ECR tokens of clients, by outcome: remembered, confirmed, denied, outage (refused), known (let in although nobody could be asked)."}, []string{"result"})}
	for i, r := range o.Registries {
		e.hosts[strings.ToLower(r.Host)] = r
		if i == 0 {
			e.first = strings.ToLower(r.Host)
		}
	}
	return e
}

// Collectors returns the metrics.
func (e *ECRAuth) Collectors() []prometheus.Collector { return []prometheus.Collector{e.results} }

// Authenticate implements Authenticator.
func (e *ECRAuth) Authenticate(r *http.Request, a Access) error {
	user, token, err := credential(r)
	switch {
	case err != nil:
		return err
	case user != "AWS" || token == "" || len(token) > maxToken:
		return unauthorized("not an ECR token: the user is AWS, the password what aws ecr get-login-password prints")
	case a.Several:
		return nil // each mirror asks its own registry once it knows what for
	}
	host := a.Registry
	if _, ok := e.hosts[host]; !ok {
		host = e.first
	}
	if there := e.hosts[host].Repo; there != nil && a.Repo != "" {
		if a.Repo = there(a.Repo); a.Repo == "" {
			return errUnknownRepository
		}
	}
	key := e.answers.of(token, host, a.Endpoint.String(), a.Repo)
	if err, ok := e.answers.recent(key, time.Now()); ok {
		e.count("remembered")
		return err
	}
	asked := e.flights.DoChan(string(key[:]), func() (any, error) { return nil, e.check(key, host, token, a, ClientOf(r.RemoteAddr)) })
	select {
	case res := <-asked:
		err = res.Err
	case <-r.Context().Done():
		err = r.Context().Err()
	}
	if registry.ClassOf(err) != registry.Unavailable || err == nil {
		return err
	}
	if e.known && e.answers.allowed(key, time.Now()) {
		e.count("known")
		return nil
	}
	e.count("outage")
	return err
}

// check asks for a client, and remembers the answer.
func (e *ECRAuth) check(key answerKey, host, token string, a Access, client netip.Addr) error {
	if err, ok := e.answers.recent(key, time.Now()); ok { // another call ended between the look at it and this one
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	leave, err := e.asking.take(ctx, client)
	if err != nil {
		return err
	}
	defer leave()
	err = e.ask(ctx, host, token, a)
	switch class := registry.ClassOf(err); {
	case err == nil:
		e.answers.allow(key, token, time.Now())
		e.count("confirmed")
	case class == registry.Denied, class == registry.NotFound:
		e.answers.deny(key, err, time.Now())
		e.count("denied")
	}
	return err
}

func (e *ECRAuth) count(result string) { e.results.WithLabelValues(result).Inc() }

// ask has the registry answer what the client asks for. Whoever may read content is redirected to it or gets it, or is told
// that there is none in a repository that exists.
func (e *ECRAuth) ask(ctx context.Context, host, token string, a Access) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.hosts[host].URL+a.path(), nil)
	if err != nil {
		return registry.Errorf(registry.Internal, "token: the registry's URL is invalid")
	}
	req.SetBasicAuth("AWS", token)
	req.Header.Set("Accept", strings.Join(registry.ManifestTypes(), ", "))
	req.Header.Set("User-Agent", "ecr-mirror")
	resp, err := e.client.Do(req)
	if err != nil {
		return registry.Errorf(registry.Unavailable, "token: the registry that knows it does not answer")
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		_, _ = io.CopyN(io.Discard, resp.Body, 256<<10) // so that the connection can be used again
		return nil
	}
	err = wire.DecodeError(resp)
	class, code := registry.ClassOf(err), registry.CodeOf(err)
	switch {
	case class == registry.NotFound && (code == registry.CodeManifestUnknown || code == registry.CodeBlobUnknown):
		return nil // of a repository that the token may read
	case class == registry.NotFound && code == registry.CodeNameUnknown:
		return errUnknownRepository
	case class == registry.Throttled, class == registry.Unavailable:
		return registry.Errorf(registry.Unavailable, "token: the registry that knows it answers %d", resp.StatusCode)
	case resp.StatusCode == http.StatusForbidden && !strings.Contains(strings.ToLower(err.Error()), "authorization token"):
		e := registry.Errorf(registry.Denied, "%s refuses to give %s to this identity", host, a.Repo)
		e.Code = wire.CodeDenied
		return e
	}
	return unauthorized("the token is not one of the registry that is asked, or has expired")
}

// errUnknownRepository names no registry, as no answer does to whom no registry knows: a host tells of an account.
var errUnknownRepository = &registry.Error{Class: registry.NotFound, Code: registry.CodeNameUnknown, Err: errors.New("the registry that is asked has no such repository")}

// path is that of the same request at the registry.
func (a Access) path() string {
	switch a.Endpoint {
	case wire.Manifest:
		return wire.ManifestPath(a.Repo, a.Reference)
	case wire.Blob:
		return wire.BlobPath(a.Repo, digest.Digest(a.Reference))
	case wire.Tags:
		return wire.TagsPath(a.Repo, 1, "")
	case wire.Referrers:
		return wire.ReferrersPath(a.Repo, digest.Digest(a.Reference), "")
	}
	return "/v2/"
}
