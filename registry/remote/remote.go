// Package remote is any OCI registry over the distribution protocol, as a registry.Reader, Writer, Lister, Catalog and
// Deleter.
//
// Credentials belong to the registry's host. They go there, and to the token service that this host names in a bearer
// challenge, and nowhere else: redirects to other origins are followed without them, a Location or Link that leaves the
// origin is refused. Nothing is repeated here, except once with a fresh credential after a 401 and once with a fresh URL after
// a redirect's target refused one that was known: callers know their patience.
//
// Where a blob's bytes are is asked once: the target of a redirect to another origin is kept until four fifths of its life
// (see wire.PresignedLife; else a minute) are over, or it is refused, and read without asking the registry again.
//
// Limitations: uploads are one PUT, not chunks, and one that breaks begins anew. Manifests pushed with a tag are stored under
// their sha256 digest. A registry without the referrers API is read through the referrers tag schema, but that tag is not
// written. A token service at a private address is accepted only on the registry's own host (oras-go's guard against forged
// challenges). Registries that answer a blob without Content-Length are not supported.
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/distribution/reference"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Options says which registry and how. Only Registry is needed.
type Options struct {
	// Registry is a host, or http://host or https://host; https if it does not say. Plain HTTP needs a loopback host or Insecure.
	Registry string
	Insecure bool
	// NS names the registry behind a mirror of several: it is sent as containerd's ns parameter. "" sends none.
	NS string

	// Username "" is anonymous. PasswordFile is read again whenever a credential is needed, so it may be rotated.
	Username, Password, PasswordFile string

	// Timeout bounds the wait for response headers, redirects and token included, and the silence within a body; 20 s if 0.
	// A registry that has received a whole blob may take 15 times as long to store it.
	Timeout time.Duration
	// Transport replaces the one made here, which asks for no compression, speaks HTTP/1.1 and honours HTTPS_PROXY. One that is
	// given must not decompress.
	Transport http.RoundTripper
	Wrap      func(http.RoundTripper) http.RoundTripper // is put around the transport; nil: nothing is
	Fetched   func(error)                               // is told of every attempt to get a bearer token; nil: nobody is
	UserAgent string                                    // "ecr-mirror" if ""
}

// Registry implements registry.Reader, Writer, Lister and Deleter.
type Registry struct {
	base      *url.URL
	ns        string
	timeout   time.Duration
	auth      *auth.Client
	transport http.RoundTripper
	redirects *redirects
}

// New returns the registry without talking to it. Errors are Invalid.
func New(o Options) (*Registry, error) {
	base, err := parseBase(o.Registry, o.Insecure)
	if err != nil {
		return nil, err
	}
	if o.Username == "" && (o.Password != "" || o.PasswordFile != "") {
		return nil, registry.Errorf(registry.Invalid, "registry %s: a password without a username", base.Host)
	}
	if o.Timeout <= 0 {
		o.Timeout = 20 * time.Second
	}
	if o.UserAgent == "" {
		o.UserAgent = "ecr-mirror"
	}
	if o.Transport == nil {
		o.Transport = newTransport()
	}
	if o.Wrap != nil {
		o.Transport = o.Wrap(o.Transport)
	}
	return &Registry{base: base, ns: o.NS, timeout: o.Timeout, transport: o.Transport, redirects: newRedirects(), auth: &auth.Client{
		Client:     &http.Client{Transport: o.Transport, CheckRedirect: checkRedirect},
		Header:     http.Header{"User-Agent": {o.UserAgent}},
		Credential: credential(base.Host, o),
		Cache:      newTokenCache(o.Fetched),
	}}, nil
}

func parseBase(s string, insecure bool) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil {
		return nil, registry.Errorf(registry.Invalid, "registry: not a URL or host") // the text may hold a password
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, registry.Errorf(registry.Invalid, "registry %s: scheme %q is not http or https", u.Host, u.Scheme)
	case u.Hostname() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, registry.Errorf(registry.Invalid, "registry %s: must be a host, without path, query or credentials", u.Host)
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		return nil, registry.Errorf(registry.Invalid, "registry %s: plain http needs a loopback host or insecure", u.Host)
	}
	u.Host = strings.ToLower(u.Host)
	if u.Host == "docker.io" || u.Host == "index.docker.io" {
		u.Host = "registry-1.docker.io" // what those names mean to every client
	}
	return u, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConnsPerHost:    32, // a fill reads its segments in parallel
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true, // bytes must arrive as they are stored: their digest is checked
	}
}

// credential answers for host alone.
func credential(host string, o Options) auth.CredentialFunc {
	return func(_ context.Context, asked string) (auth.Credential, error) {
		if asked != host || o.Username == "" {
			return auth.EmptyCredential, nil
		}
		password := o.Password
		if o.PasswordFile != "" {
			b, err := os.ReadFile(o.PasswordFile)
			if err != nil {
				return auth.EmptyCredential, registry.Errorf(registry.Denied, "password file: %w", err)
			}
			password = strings.TrimRight(string(b), "\r\n")
		}
		if password == "" {
			return auth.EmptyCredential, registry.Errorf(registry.Denied, "password of %s: empty", host)
		}
		return auth.Credential{Username: o.Username, Password: password}, nil
	}
}

// String is the registry's host.
func (r *Registry) String() string { return r.base.Host }

// CloseIdleConnections ends connections that nothing uses.
func (r *Registry) CloseIdleConnections() {
	if c, ok := r.transport.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func checkTag(tag string) error {
	name, err := reference.WithName("name")
	if err == nil {
		_, err = reference.WithTag(name, tag)
	}
	if err != nil {
		e := registry.Errorf(registry.Invalid, "tag: %w", err)
		e.Code = registry.CodeTagInvalid
		return e
	}
	return nil
}

func checkObject(o registry.Object) error {
	if err := wire.CheckRepo(o.Repo); err != nil {
		return err
	}
	if err := o.Digest.Validate(); err != nil {
		e := registry.Errorf(registry.Invalid, "digest: %w", err)
		e.Code = registry.CodeDigestInvalid
		return e
	}
	return nil
}

func path(o registry.Object) string {
	if o.Kind == registry.Manifest {
		return wire.ManifestPath(o.Repo, o.Digest.String())
	}
	return wire.BlobPath(o.Repo, o.Digest)
}

// absent gives a NotFound without a code (answers to HEAD have no body) the code of what was asked for.
func absent(err error, code string) error {
	var e *registry.Error
	if errors.As(err, &e) && e.Class == registry.NotFound && e.Code == "" {
		e.Code = code
	}
	return err
}

func codeOf(k registry.Kind) string {
	if k == registry.Manifest {
		return registry.CodeManifestUnknown
	}
	return registry.CodeBlobUnknown
}

// within puts what was being done in front of an error.
func within(err *error, format string, args ...any) {
	if *err != nil {
		*err = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *err)
	}
}
