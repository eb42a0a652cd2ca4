// Package mem is a registry in memory: the reference implementation of the registry contracts, for tests and for the
// emulator's model. It verifies what it stores, as a registry must: manifests only after what they refer to.
//
// Limitations: everything is in memory and nothing is ever collected.
package mem

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Registry implements registry.Reader, Writer, Lister, Catalog, Deleter and Provisioner. The zero value is not ready: use New.
type Registry struct {
	// StrictRepos has writes to a repository that was not created fail with NAME_UNKNOWN, as ECR does. Set it before use.
	StrictRepos bool

	mu    sync.RWMutex
	repos map[string]*repo
}

type repo struct {
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]manifest
	tags      map[string]digest.Digest
}

type manifest struct {
	desc   registry.Descriptor
	body   []byte
	links  registry.Links
	pushed time.Time
}

// New returns an empty registry.
func New() *Registry { return &Registry{repos: make(map[string]*repo)} }

func (r *Registry) String() string { return "memory" }

func nameUnknown(name string) error {
	e := registry.Errorf(registry.NotFound, "repository %s: not found", name)
	e.Code = registry.CodeNameUnknown
	return e
}

// Resolve implements registry.Reader.
func (r *Registry) Resolve(ctx context.Context, name, tag string) (registry.Descriptor, error) {
	if err := ctx.Err(); err != nil {
		return registry.Descriptor{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.repos[name]
	if p == nil {
		return registry.Descriptor{}, nameUnknown(name)
	}
	d, ok := p.tags[tag]
	if !ok {
		e := registry.Errorf(registry.NotFound, "tag %s:%s: not found", name, tag)
		e.Code = registry.CodeManifestUnknown
		return registry.Descriptor{}, e
	}
	return p.manifests[d].desc, nil
}

func (r *Registry) find(ctx context.Context, o registry.Object) (registry.Descriptor, []byte, error) {
	if err := ctx.Err(); err != nil {
		return registry.Descriptor{}, nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.repos[o.Repo]
	if p == nil {
		return registry.Descriptor{}, nil, nameUnknown(o.Repo)
	}
	if o.Kind == registry.Manifest {
		if m, ok := p.manifests[o.Digest]; ok {
			return m.desc, m.body, nil
		}
	} else if b, ok := p.blobs[o.Digest]; ok {
		return registry.Descriptor{MediaType: "application/octet-stream", Digest: o.Digest, Size: int64(len(b))}, b, nil
	}
	return registry.Descriptor{}, nil, registry.Unknown(o)
}

// Stat implements registry.Reader.
func (r *Registry) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	d, _, err := r.find(ctx, o)
	return d, err
}

// Open implements registry.Reader.
func (r *Registry) Open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	d, b, err := r.find(ctx, o)
	if err != nil {
		return nil, err
	}
	rg, ok := rg.Clip(d.Size)
	if !ok {
		return nil, registry.Errorf(registry.Invalid, "open %v: range outside its %d bytes", o, d.Size)
	}
	return &registry.Content{Descriptor: d, Range: rg, From: r,
		ReadCloser: io.NopCloser(bytes.NewReader(b[rg.Offset : rg.Offset+rg.Length]))}, nil
}

// Tags implements registry.Lister; the order is lexical.
func (r *Registry) Tags(ctx context.Context, name string) iter.Seq2[string, error] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.repos[name]
	if p == nil {
		return fail[string](nameUnknown(name))
	}
	tags := make([]string, 0, len(p.tags))
	for t := range p.tags {
		tags = append(tags, t)
	}
	slices.Sort(tags)
	return all(ctx, tags)
}

// Referrers implements registry.Lister; the order is that of their digests.
func (r *Registry) Referrers(ctx context.Context, name string, d digest.Digest, artifactType string) iter.Seq2[registry.Descriptor, error] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.repos[name]
	if p == nil {
		return fail[registry.Descriptor](nameUnknown(name))
	}
	var found []registry.Descriptor
	for _, m := range p.manifests {
		if m.links.Subject != nil && m.links.Subject.Digest == d && (artifactType == "" || artifactType == m.links.ArtifactType) {
			desc := m.desc
			desc.ArtifactType, desc.Annotations = m.links.ArtifactType, m.links.Annotations
			found = append(found, desc)
		}
	}
	slices.SortFunc(found, func(a, b registry.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	return all(ctx, found)
}

// Repositories implements registry.Catalog; the order is lexical.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var names []string
	for n := range r.repos {
		names = append(names, n)
	}
	slices.Sort(names)
	return all(ctx, names)
}

// Images implements registry.Catalog.
func (r *Registry) Images(ctx context.Context, name string, since time.Time) iter.Seq2[registry.Image, error] {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.repos[name]
	if p == nil {
		return fail[registry.Image](nameUnknown(name))
	}
	var images []registry.Image
	for d, m := range p.manifests {
		if !m.pushed.Before(since) {
			images = append(images, p.image(d))
		}
	}
	slices.SortFunc(images, func(a, b registry.Image) int {
		return cmp.Or(a.PushedAt.Compare(b.PushedAt), cmp.Compare(a.Descriptor.Digest, b.Descriptor.Digest))
	})
	return all(ctx, images)
}

// Describe implements registry.Describer.
func (r *Registry) Describe(ctx context.Context, name string, d digest.Digest) (registry.Image, error) {
	o := registry.Object{Repo: name, Kind: registry.Manifest, Digest: d}
	if _, _, err := r.find(ctx, o); err != nil {
		return registry.Image{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.repos[name].image(d), nil
}

// image describes the manifest d. The caller holds the registry's mu.
func (p *repo) image(d digest.Digest) registry.Image {
	m := p.manifests[d]
	img := registry.Image{Descriptor: m.desc, PushedAt: m.pushed}
	if m.links.Subject != nil {
		img.Subject = m.links.Subject.Digest
	}
	for t, td := range p.tags {
		if td == d {
			img.Tags = append(img.Tags, t)
		}
	}
	slices.Sort(img.Tags)
	return img
}

func all[T any](ctx context.Context, items []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, it := range items {
			if err := ctx.Err(); err != nil {
				yield(*new(T), err)
				return
			}
			if !yield(it, nil) {
				return
			}
		}
	}
}

func fail[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) { yield(*new(T), err) }
}

// CreateRepository implements registry.Provisioner.
func (r *Registry) CreateRepository(ctx context.Context, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.create(name)
	return ctx.Err()
}

func (r *Registry) create(name string) *repo {
	p := r.repos[name]
	if p == nil {
		p = &repo{make(map[digest.Digest][]byte), make(map[digest.Digest]manifest), make(map[string]digest.Digest)}
		r.repos[name] = p
	}
	return p
}

// writable returns the repository to write to. The caller holds mu.
func (r *Registry) writable(name string) (*repo, error) {
	if r.StrictRepos && r.repos[name] == nil {
		return nil, nameUnknown(name)
	}
	return r.create(name), nil
}

// Missing implements registry.Writer.
func (r *Registry) Missing(ctx context.Context, name string, objects []registry.Object) ([]registry.Object, error) {
	var missing []registry.Object
	for _, o := range objects {
		o.Repo = name
		if _, err := r.Stat(ctx, o); registry.CodeOf(err) == registry.CodeNameUnknown && r.StrictRepos {
			return nil, err
		} else if registry.ClassOf(err) == registry.NotFound {
			missing = append(missing, o)
		} else if err != nil {
			return nil, err
		}
	}
	return missing, nil
}

// Mount implements registry.Writer.
func (r *Registry) Mount(ctx context.Context, o registry.Object, from string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.writable(o.Repo)
	if err != nil {
		return false, err
	}
	if src := r.repos[from]; src != nil {
		if b, ok := src.blobs[o.Digest]; ok {
			p.blobs[o.Digest] = b
			return true, ctx.Err()
		}
	}
	return false, ctx.Err()
}

// PutBlob implements registry.Writer.
func (r *Registry) PutBlob(ctx context.Context, name string, d registry.Descriptor, body io.Reader) error {
	r.mu.Lock()
	_, err := r.writable(name)
	r.mu.Unlock()
	if err != nil {
		return err
	}
	b, err := io.ReadAll(registry.Verify(body, d.Digest, d.Size))
	if err != nil {
		return fmt.Errorf("put blob %s@%s: %w", name, d.Digest, err)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.writable(name)
	if err != nil {
		return err
	}
	p.blobs[d.Digest] = b
	return nil
}

// PutManifest implements registry.Writer.
func (r *Registry) PutManifest(ctx context.Context, name, tag string, d registry.Descriptor, body []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := registry.VerifyBytes(body, d.Digest); err != nil {
		return fmt.Errorf("put manifest %s: %w", name, err)
	}
	links, err := registry.ParseManifest(d.MediaType, body)
	if err != nil {
		return fmt.Errorf("put manifest %s@%s: %w", name, d.Digest, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p, err := r.writable(name)
	if err != nil {
		return err
	}
	for _, b := range links.Blobs {
		if _, ok := p.blobs[b.Digest]; !ok {
			return registry.Errorf(registry.Invalid, "put manifest %s@%s: blob %s is missing", name, d.Digest, b.Digest)
		}
	}
	for _, c := range links.Manifests {
		if _, ok := p.manifests[c.Digest]; !ok {
			return registry.Errorf(registry.Invalid, "put manifest %s@%s: manifest %s is missing", name, d.Digest, c.Digest)
		}
	}
	if _, ok := p.manifests[d.Digest]; !ok {
		desc := registry.Descriptor{MediaType: links.MediaType, Digest: d.Digest, Size: int64(len(body))}
		p.manifests[d.Digest] = manifest{desc, bytes.Clone(body), links, time.Now()}
	}
	if tag != "" {
		p.tags[tag] = d.Digest
	}
	return nil
}

// DeleteManifest implements registry.Deleter.
func (r *Registry) DeleteManifest(ctx context.Context, name string, d digest.Digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.repos[name]; p != nil {
		delete(p.manifests, d)
		for t, td := range p.tags {
			if td == d {
				delete(p.tags, t)
			}
		}
	}
	return ctx.Err()
}
