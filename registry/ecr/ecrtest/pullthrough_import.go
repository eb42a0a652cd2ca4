package ecrtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	// cacheFresh is how long an imported tag is served without asking the upstream (Amazon ECR User Guide, "pull through cache":
	// "at least once every 24 hours").
	cacheFresh    = 24 * time.Hour
	importTimeout = 30 * time.Second
)

// pullThrough imports the image that id names when a cache rule is about its repository, and it is not there or its tag is
// old. The failure is one of BatchGetImage's; what was imported before is served in spite of one. Who may not import sees what is
// there: for others the image does not exist. The caller does not hold r.mu.
func (r *Registry) pullThrough(who *principal, name string, id imageID) *failure {
	r.mu.Lock()
	rule := r.cacheRule(name)
	p := r.repos[name]
	there := false
	if p != nil {
		_, _, fail := p.lookup(id)
		there = fail == nil
	}
	current := there && (id.ImageTag == "" || r.emu.now().Sub(p.CheckedAt[id.ImageTag]) < cacheFresh)
	r.mu.Unlock()
	if rule == nil || current || checkName(name) != nil || id.ImageTag == "" && id.ImageDigest.Validate() != nil {
		return nil
	}
	actions := []string{"ecr:BatchImportUpstreamImage"}
	if p == nil {
		actions = append(actions, "ecr:CreateRepository")
	}
	for _, a := range actions {
		if r.allow(who, a, name) != nil {
			return nil
		}
	}
	r.importing.Lock() // one at a time: the second finds what the first brought
	defer r.importing.Unlock()
	ctx, cancel := context.WithTimeout(r.emu.closing, importTimeout)
	defer cancel()
	d, err := r.importImage(ctx, rule, name, id)
	r.announceImport(rule, name, id.ImageTag, d, err)
	if err == nil || there {
		return nil
	}
	f := &failure{ImageID: id, Code: "UpstreamUnavailable", Reason: "The upstream registry is unavailable"}
	switch registry.ClassOf(err) {
	case registry.NotFound:
		return nil
	case registry.Denied:
		f.Code, f.Reason = "UpstreamAccessDenied", "Access to the upstream registry is denied"
	case registry.Throttled:
		f.Code, f.Reason = "UpstreamTooManyRequests", "The upstream registry has too many requests"
	}
	return f
}

// upstream returns what reads a rule's upstream; nil when the emulator has none for it.
func (r *Registry) upstream(rule *cacheRule) registry.Reader {
	if at, ok := parseHost(rule.URL); ok {
		if up := r.emu.find(at.Account, at.Region); up != nil {
			return &neighbour{up, r.emu.serviceRole(r.Account, rule.RoleARN)}
		}
		return nil
	}
	return r.emu.opt.Upstreams[rule.URL]
}

// serviceRole is the principal that a rule's role is; without one, ECR's own role in the account.
func (e *Emulator) serviceRole(account, arn string) *principal {
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.principals {
		if p.Account == account && p.Name == name && p.Token == "" {
			return p
		}
	}
	return &principal{Account: account, Name: "AWSServiceRoleForECRPullThroughCache", Policies: allowAll()}
}

func (r *Registry) importImage(ctx context.Context, rule *cacheRule, name string, id imageID) (digest.Digest, error) {
	from, _ := rule.upstreamName(name)
	up := r.upstream(rule)
	if up == nil {
		return "", registry.Errorf(registry.Unavailable, "there is no upstream %s here", rule.URL)
	}
	d := id.ImageDigest
	if id.ImageTag != "" {
		desc, err := up.Resolve(ctx, from, id.ImageTag)
		if err != nil {
			return "", err
		}
		d = desc.Digest
	}
	r.mu.Lock()
	if r.repos[name] == nil {
		if _, err := r.createFor(name, forCache); err != nil {
			r.mu.Unlock()
			return d, err
		}
	}
	r.mu.Unlock()
	return d, r.importManifest(ctx, up, from, name, id.ImageTag, d)
}

// importManifest imports bottom-up.
func (r *Registry) importManifest(ctx context.Context, up registry.Reader, from, name, tag string, d digest.Digest) error {
	body, mediaType, err := readAll(ctx, up, registry.Object{Repo: from, Kind: registry.Manifest, Digest: d})
	if err != nil {
		return err
	}
	links, err := registry.ParseManifest(mediaType, body)
	if err != nil {
		return err
	}
	for _, b := range links.Blobs {
		if err := r.importLayer(ctx, up, registry.Object{Repo: from, Kind: registry.Blob, Digest: b.Digest}, name); err != nil {
			return err
		}
	}
	for _, m := range links.Manifests {
		if err := r.importManifest(ctx, up, from, name, "", m.Digest); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.repo(name)
	if err != nil {
		return err
	}
	if _, err := r.store(p, tag, mediaType, d, body); err != nil && asAPI(err).Type != "ImageAlreadyExistsException" {
		return err
	}
	if tag != "" {
		if p.CheckedAt == nil {
			p.CheckedAt = map[string]time.Time{}
		}
		p.CheckedAt[tag] = r.emu.now()
	}
	p.Cache = true
	return r.save(p)
}

func (r *Registry) importLayer(ctx context.Context, up registry.Reader, o registry.Object, name string) error {
	r.mu.Lock()
	there := false
	if p := r.repos[name]; p != nil {
		_, there = p.Layers[o.Digest]
	}
	r.mu.Unlock()
	if there {
		return nil
	}
	c, err := up.Open(ctx, o, registry.Whole)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := r.emu.content.stage()
	if err != nil {
		return err
	}
	n, err := io.Copy(s, registry.Verify(c, o.Digest, c.Descriptor.Size))
	if err != nil {
		s.abort()
		return err
	}
	if err := s.commit(o.Digest); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.repo(name)
	if err != nil {
		return err
	}
	p.Layers[o.Digest] = layer{n, r.emu.now()}
	return nil
}

func readAll(ctx context.Context, up registry.Reader, o registry.Object) (body []byte, mediaType string, err error) {
	c, err := up.Open(ctx, o, registry.Whole)
	if err != nil {
		return nil, "", err
	}
	defer c.Close()
	body, err = io.ReadAll(io.LimitReader(c, maxManifest+1))
	if err == nil {
		err = registry.VerifyBytes(body, o.Digest)
	}
	return body, c.Descriptor.MediaType, err
}

// neighbour reads another registry of the emulator as a principal may: what an ECR upstream is.
type neighbour struct {
	*Registry
	who *principal
}

func (n *neighbour) may(name string, actions ...string) error {
	if n.down.Load() || n.unreachable.Load() {
		return registry.Errorf(registry.Unavailable, "%s is down", n.Host())
	}
	for _, a := range actions {
		if err := n.allow(n.who, a, name); err != nil {
			return &registry.Error{Class: registry.Denied, Err: err}
		}
	}
	return nil
}

func (n *neighbour) Resolve(_ context.Context, name, tag string) (registry.Descriptor, error) {
	return n.image(name, imageID{ImageTag: tag})
}

func (n *neighbour) image(name string, id imageID) (registry.Descriptor, error) {
	if err := n.may(name, "ecr:BatchGetImage"); err != nil {
		return registry.Descriptor{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.repos[name]
	if p == nil {
		return registry.Descriptor{}, registry.Errorf(registry.NotFound, "repository %s", name)
	}
	d, img, fail := p.lookup(id)
	if fail != nil || img.Archived {
		return registry.Descriptor{}, registry.Errorf(registry.NotFound, "image %s%v", name, id)
	}
	return registry.Descriptor{MediaType: img.MediaType, Digest: d, Size: img.ManifestSize}, nil
}

func (n *neighbour) Stat(_ context.Context, o registry.Object) (registry.Descriptor, error) {
	if o.Kind == registry.Manifest {
		return n.image(o.Repo, imageID{ImageDigest: o.Digest})
	}
	if err := n.may(o.Repo, "ecr:GetDownloadUrlForLayer"); err != nil {
		return registry.Descriptor{}, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := n.repos[o.Repo]; p != nil {
		if l, ok := p.Layers[o.Digest]; ok {
			return registry.Descriptor{MediaType: "application/octet-stream", Digest: o.Digest, Size: l.Size}, nil
		}
	}
	return registry.Descriptor{}, registry.Unknown(o)
}

func (n *neighbour) Open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	d, err := n.Stat(ctx, o)
	if err != nil {
		return nil, err
	}
	rg, ok := rg.Clip(d.Size)
	if !ok {
		return nil, registry.Errorf(registry.Invalid, "range outside %d bytes", d.Size)
	}
	body, err := get(n.emu.content, o.Digest)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", o, err)
	}
	return &registry.Content{Descriptor: d, Range: rg, From: n, ReadCloser: io.NopCloser(bytes.NewReader(body[rg.Offset : rg.Offset+rg.Length]))}, nil
}
