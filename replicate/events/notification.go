package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxHost is how long the name of a registry may be, in bytes.
const maxHost = 255

var domain = regexp.MustCompile(`^(?:` + reference.DomainRegexp.String() + `)$`)

// notification is an event of Distribution (package notifications, Event): of docker-registry, Harbor's registry and others.
type notification struct {
	Action    string    `json:"action"`
	Timestamp time.Time `json:"timestamp"`
	Target    struct {
		MediaType  string `json:"mediaType"`
		Digest     string `json:"digest"`
		Repository string `json:"repository"`
		URL        string `json:"url"`
		Tag        string `json:"tag"`
	} `json:"target"`
	Request struct {
		Host string `json:"host"`
	} `json:"request"`
	Source struct {
		Addr string `json:"addr"`
	} `json:"source"`
}

// notifications reads the events of one envelope, each by itself.
func notifications(events []json.RawMessage) (changes []registry.Change, err error) {
	var ignored, bad []error
	for i, raw := range events {
		c, err := change(raw)
		switch {
		case err == nil:
			changes = append(changes, c)
		case errors.Is(err, ErrIgnored):
			ignored = append(ignored, fmt.Errorf("events[%d]: %w", i, err))
		default:
			bad = append(bad, fmt.Errorf("events[%d]: %w", i, err))
		}
	}
	if len(bad) > 0 {
		return changes, bad[0]
	}
	if len(changes) == 0 {
		return nil, ignored[0]
	}
	return changes, nil
}

func change(raw json.RawMessage) (registry.Change, error) {
	var n notification
	if err := json.Unmarshal(raw, &n); err != nil {
		return registry.Change{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	c := registry.Change{Repo: n.Target.Repository, Tag: n.Target.Tag, Digest: digest.Digest(n.Target.Digest), At: n.Timestamp}
	switch n.Action {
	case "push":
	case "delete":
		c.Op, c.Explicit = registry.Delete, true
	case "pull", "mount":
		return registry.Change{}, fmt.Errorf("action %s: %w", n.Action, ErrIgnored)
	default:
		return registry.Change{}, fmt.Errorf("action %.100q: %w", n.Action, ErrUnknown)
	}
	if n.blob() {
		return registry.Change{}, fmt.Errorf("%s of a blob: %w", n.Action, ErrIgnored)
	}
	var ok bool
	if c.Registry, ok = n.host(); !ok {
		return registry.Change{}, fmt.Errorf("no valid host: %w", ErrMalformed)
	}
	return validated(c)
}

// blob reports whether the target is no manifest: pushes of layers and configs are notified, too.
func (n *notification) blob() bool {
	if n.Target.Tag != "" || slices.Contains(registry.ManifestTypes(), n.Target.MediaType) {
		return false
	}
	return n.Target.MediaType != "" || strings.Contains(n.Target.URL, "/blobs/")
}

// host returns the registry's name as the client that pushed knew it, else the target URL's, else the registry node's own.
func (n *notification) host() (string, bool) {
	host := n.Request.Host
	if u, err := url.Parse(n.Target.URL); host == "" && err == nil {
		host = u.Host
	}
	if host == "" {
		host = n.Source.Addr
	}
	host = strings.ToLower(host)
	return host, len(host) <= maxHost && domain.MatchString(host)
}
