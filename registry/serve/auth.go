package serve

import (
	"net/http"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Authenticator decides who may read what.
type Authenticator interface {
	// Authenticate returns nil if r may read repo of the mirror whose first name is given. repo is "" for /v2/, from which
	// docker and podman learn whether credentials are wanted at all. An error of class Denied is answered with 401 and a
	// Basic challenge, or with 403 if its code is DENIED; other classes as always. Implementations keep credentials out of
	// their errors.
	Authenticate(r *http.Request, mirror, repo string) error
}

// challenge is the only one offered: clients send a Basic credential to the host that asks and nowhere else, and kubelet's
// ECR credential reaches a containerd mirror in no other way. The service is what ECR itself says.
const challenge = `Basic realm="ecr-mirror",service="ecr.amazonaws.com"`

// refuse turns an Authenticator's error into the answer.
func (x *exchange) refuse(err error) error {
	if registry.ClassOf(err) == registry.Denied && registry.CodeOf(err) != wire.CodeDenied {
		x.w.Header().Set("WWW-Authenticate", challenge)
		x.status = http.StatusUnauthorized
	}
	return err
}

// unauthorized is what an Authenticator returns to have a client asked for credentials.
func unauthorized(message string) error {
	e := registry.Errorf(registry.Denied, "%s", message)
	e.Code = wire.CodeUnauthorized
	return e
}
