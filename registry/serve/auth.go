package serve

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Access is what a request wants to read.
type Access struct {
	Endpoint  wire.Endpoint
	Registry  string // host by which the client named the registry, in lower case; "" if it did not
	Repo      string // "" for /v2/
	Reference string // tag or digest of a manifest, digest of a blob or of the subject of referrers
	// Several is set for a /v2/ that may be for any of several mirrors: a credential is looked at, but sent to nobody.
	Several bool
}

// Authenticator decides who may read what of a mirror.
type Authenticator interface {
	// Authenticate returns nil if r may have what a says. /v2/ is asked about as well: from it docker and podman learn whether
	// credentials are wanted at all. An error of class Denied is answered with 401 and a Basic challenge, or with 403 if its
	// code is DENIED; other classes as always. r's context bounds the call. Implementations keep credentials out of errors.
	Authenticate(r *http.Request, a Access) error
}

// challenge is the only one offered: clients send a Basic credential to the host that asks and nowhere else, and kubelet's
// ECR credential reaches a containerd mirror in no other way. The service is what ECR itself says.
const challenge = `Basic realm="ecr-mirror",service="ecr.amazonaws.com"`

// authenticate asks the mirror's Authenticator. A /v2/ that names no registry may be any mirror's: it wants a credential if
// one of them does, for clients learn that here or never, and takes one that any of them takes.
func (x *exchange) authenticate() error {
	if x.req.Endpoint != wire.Base || x.req.NS != "" {
		if x.mirror == nil || x.mirror.Auth == nil {
			return nil
		}
		return x.allowedBy(x.mirror.Auth, false)
	}
	var wanted []Authenticator
	for i := range x.h.opts.Mirrors {
		if a := x.h.opts.Mirrors[i].Auth; a != nil && !slices.Contains(wanted, a) {
			wanted = append(wanted, a)
		}
	}
	var failed error
	for _, a := range wanted {
		err := x.allowedBy(a, len(wanted) > 1)
		if err == nil {
			return nil
		}
		if failed == nil || registry.ClassOf(failed) == registry.Denied { // what could not be asked may have been the one
			failed = err
		}
	}
	return failed
}

func (x *exchange) allowedBy(a Authenticator, several bool) error {
	access := Access{Endpoint: x.req.Endpoint, Registry: x.named, Repo: x.repo, Reference: x.req.Tag + x.req.Digest.String(), Several: several}
	if !x.served() { // there is nothing to read: whether the client is let in at all
		access = Access{Endpoint: wire.Base, Registry: x.named, Several: several}
	}
	_, end, err := within(x.ctx, x.patience(), func(ctx context.Context) (struct{}, error) {
		return struct{}{}, a.Authenticate(x.r.WithContext(ctx), access)
	})
	end()
	return err
}

// refuse turns an Authenticator's error into the answer. A refusal of somebody who tried is for the audit: clients without
// credentials are refused at the beginning of every pull, and then try.
func (x *exchange) refuse(err error) error {
	if registry.ClassOf(err) != registry.Denied {
		return err
	}
	if registry.CodeOf(err) != wire.CodeDenied {
		x.w.Header().Set("WWW-Authenticate", challenge)
		x.status = http.StatusUnauthorized
	}
	if !errors.Is(err, errNoCredential) {
		x.h.opts.Logger.LogAttrs(x.ctx, slog.LevelWarn, "denied", slog.String("client", x.r.RemoteAddr), slog.String("registry", x.named),
			slog.String("repo", x.repo), slog.String("endpoint", x.req.Endpoint.String()), slog.String("error", err.Error()))
	}
	return err
}

// errNoCredential asks a client for a credential: it sent none, or an empty pair as podman does when it has none.
var errNoCredential = &registry.Error{Class: registry.Denied, Code: wire.CodeUnauthorized, Err: errors.New("authentication required")}

// unauthorized is what an Authenticator returns to have a client asked for another credential.
func unauthorized(message string) error {
	e := registry.Errorf(registry.Denied, "%s", message)
	e.Code = wire.CodeUnauthorized
	return e
}

// credential returns the Basic credential of a request.
func credential(r *http.Request) (user, password string, err error) {
	user, password, ok := r.BasicAuth()
	if !ok || user == "" && password == "" {
		return "", "", errNoCredential
	}
	return user, password, nil
}
