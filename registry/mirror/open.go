package mirror

import (
	"context"
	"fmt"
	"io"
	"reflect"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Stat implements registry.Reader. While no upstream can be reached, a manifest whose content is not local is Unavailable.
func (m *Mirror) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	if err := m.whole(ctx, o); err != nil {
		return registry.Descriptor{}, err
	}
	return m.opts.Objects.Stat(ctx, o)
}

// Open implements registry.Reader. While no upstream can be reached, a manifest whose content is not local is Unavailable. Of one
// that nobody has, the tags that named it are asked for anew.
// The context's Trace learns where the content comes from.
func (m *Mirror) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	if err := m.whole(ctx, o); err != nil {
		return nil, err
	}
	c, err := m.opts.Objects.Open(ctx, o, r)
	if o.Kind == registry.Manifest && err != nil && registry.ClassOf(err) == registry.NotFound {
		for _, tag := range m.tags.dangling(o) {
			m.Invalidate(o.Repo, tag)
		}
	}
	if err != nil {
		return nil, err
	}
	trace := registry.TraceOf(ctx)
	fromSource := same(c.From, m.opts.Source)
	switch {
	case fromSource:
		trace.SetTier("source")
	case same(c.From, m.opts.Destination):
		trace.SetTier("destination")
	case trace.Tier() == "":
		trace.SetTier("local")
	}
	if o.Kind == registry.Manifest && m.opts.Destination != nil {
		m.report(o, c.Descriptor, fromSource)
	}
	return c, nil
}

// report tells Missed of each tag that the source said names o and that it has not been told of, wherever the bytes come from:
// the destination may lack the tag. Bytes from the source are a report in any case.
func (m *Mirror) report(o registry.Object, d registry.Descriptor, fromSource bool) {
	if fromSource {
		m.metrics.missed.Inc()
	}
	if m.opts.Missed == nil {
		return
	}
	owed := m.tags.owed(o)
	if len(owed) == 0 && fromSource {
		owed = []string{m.tags.tagOf(o)}
	}
	for _, tag := range owed {
		if m.opts.Missed(Miss{Repo: o.Repo, Tag: tag, Descriptor: d}) != nil {
			m.tags.owe(o.Repo, tag)
		}
	}
}

// same compares readers of any type; == would panic on those that cannot be compared.
func same(a, b registry.Reader) bool {
	return a != nil && b != nil && reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// whole returns nil unless no upstream can be reached and o is a manifest whose content is not local: a client that got the
// manifest here would ask here for the rest (podman, CRI-O), and a refusal now lets it go elsewhere.
func (m *Mirror) whole(ctx context.Context, o registry.Object) error {
	if o.Kind != registry.Manifest || m.opts.Local == nil || m.reachable() {
		return nil
	}
	known := m.unreachable()
	if !known && !m.opts.Local(o) {
		return nil // it has to be asked for upstream, which tells
	}
	ok, err := m.complete(ctx, o, 0)
	if err != nil {
		return fmt.Errorf("check content of %v: %w", o, err)
	}
	if ok || !known && m.probe(o) {
		return nil
	}
	return registry.Errorf(registry.Unavailable, "%v: no upstream answers and its content is not all local", o)
}

// complete reports whether a manifest and all its blobs are local; of an index, at least one image. Attestations (platform
// unknown/unknown) are not images, and an index without any image is complete by itself.
func (m *Mirror) complete(ctx context.Context, o registry.Object, depth int) (bool, error) {
	if depth > 3 || !m.opts.Local(o) {
		return false, nil
	}
	c, err := m.opts.Objects.Open(ctx, o, registry.Whole)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(io.LimitReader(c, registry.MaxManifestSize+1))
	if err := c.Close(); err != nil {
		return false, err
	}
	if err != nil {
		return false, err
	}
	links, err := registry.ParseManifest(c.Descriptor.MediaType, body)
	if err != nil {
		return true, nil // not ours to understand: the client knows what else it needs
	}
	for _, b := range links.Blobs {
		if !m.opts.Local(registry.Object{Repo: o.Repo, Kind: registry.Blob, Digest: b.Digest}) {
			return false, nil
		}
	}
	images := 0
	for _, child := range links.Manifests {
		if child.Platform != nil && child.Platform.OS == "unknown" {
			continue
		}
		images++
		ok, err := m.complete(ctx, registry.Object{Repo: o.Repo, Kind: registry.Manifest, Digest: child.Digest}, depth+1)
		if ok || err != nil {
			return ok, err
		}
	}
	return images == 0, nil
}
