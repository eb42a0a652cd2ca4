package serve

import (
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// route finds the mirror that a request is for, the host that the client named it by, and the repository in it. Clients name the upstream in three ways: the ns
// parameter (containerd, Docker's containerd store), a path prefix /v2/HOST/<repo>/ (podman, CRI-O), both (BuildKit), or
// not at all, which is the first mirror. Names are matched, never dialled; what is unknown is NotFound without any call.
//
// A first component that is not the name of a mirror is part of the repository's name, though it may look like a host:
// ECR repositories such as docker.io/library/nginx are common. What cannot be a repository (it has a port) or can be nothing
// but a registry (ECR's host pattern) is an unknown registry.
func (h *Handler) route(r wire.Request) (m *Mirror, named, repo string, err error) {
	if len(h.opts.Mirrors) > 0 {
		m = &h.opts.Mirrors[0]
	}
	if r.NS != "" {
		if m = h.byName[r.NS]; m == nil {
			return nil, "", "", unknownRegistry(r.NS)
		}
	}
	if r.Endpoint == wire.Base || r.Name == "" {
		return m, r.NS, "", nil
	}
	named, repo = r.NS, r.Name
	host, rest := r.SplitHost()
	switch prefixed := h.byName[host]; {
	case host == "":
	case prefixed != nil && r.NS != "" && prefixed != m:
		e := registry.Errorf(registry.Invalid, "ns %q and path prefix %q name two registries", r.NS, host)
		e.Code = registry.CodeNameInvalid
		return nil, "", "", e
	case prefixed != nil:
		m, repo = prefixed, rest
		if named == "" {
			named = host
		}
	case strings.ContainsAny(host, ":[") || isECR(host):
		return nil, "", "", unknownRegistry(host)
	}
	if err := wire.CheckRepo(repo); err != nil {
		return nil, "", "", err
	}
	return m, named, repo, nil
}

func unknownRegistry(host string) error {
	e := registry.Errorf(registry.NotFound, "registry %q is not mirrored here", host)
	e.Code = registry.CodeNameUnknown
	return e
}

// isECR reports whether host is that of a private ECR registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com.
func isECR(host string) bool {
	_, rest, ok := strings.Cut(host, ".dkr.ecr")
	return ok && (strings.HasSuffix(rest, ".amazonaws.com") || strings.HasSuffix(rest, ".amazonaws.com.cn"))
}
