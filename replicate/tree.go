package replicate

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// Bounds on what one image may refer to, against hostile manifests. Real images: depth 1, ten manifests, a hundred blobs.
const (
	maxDepth     = 4        // an index within an index within … below the root
	maxManifests = 1000     // in all
	maxBlobs     = 20_000   // in all
	maxBodies    = 64 << 20 // bytes of manifests in all: they are held until they are sent
)

// manifest is one manifest, byte-exact.
type manifest struct {
	desc  registry.Descriptor
	body  []byte
	blobs []digest.Digest
}

// tree is what of an image the destination lacks, in the order in which it is sent: blobs, then levels bottom-up. The
// root is the last level.
type tree struct {
	blobs  []registry.Object
	levels [][]registry.Object
	bodies map[registry.Object]manifest
	bytes  int
	height map[digest.Digest]int // of manifests seen; -1: the destination has it
	seen   map[registry.Object]bool
	// platforms choose among the images of indexes. An index that lacks some is not sent, nor one above it.
	platforms rules.Platforms
	partial   map[digest.Digest]bool
}

// tree reads root and, below it, what the destination lacks. A manifest that the destination has is not descended into:
// it was accepted only after what it refers to.
func (t *transfer) tree(ctx context.Context, root digest.Digest, platforms rules.Platforms) (*tree, error) {
	tr := &tree{bodies: make(map[registry.Object]manifest), height: make(map[digest.Digest]int), seen: make(map[registry.Object]bool),
		platforms: platforms, partial: make(map[digest.Digest]bool)}
	_, err := t.visit(ctx, tr, root, 0)
	return tr, err
}

func (t *transfer) visit(ctx context.Context, tr *tree, d digest.Digest, depth int) (height int, err error) {
	if h, ok := tr.height[d]; ok {
		return h, nil
	}
	o := registry.Object{Repo: t.repo, Kind: registry.Manifest, Digest: d}
	if depth > maxDepth {
		return 0, registry.Errorf(registry.Invalid, "%v: nested deeper than %d", o, maxDepth)
	}
	m, links, err := t.readManifest(ctx, d)
	if err != nil {
		return 0, err
	}
	if tr.bytes += len(m.body); tr.bytes > maxBodies {
		return 0, registry.Errorf(registry.Invalid, "%v: more than %d bytes of manifests", o, maxBodies)
	}
	for _, b := range links.Blobs {
		if bo := (registry.Object{Repo: t.repo, Kind: registry.Blob, Digest: b.Digest}); !tr.seen[bo] {
			tr.seen[bo] = true
			tr.blobs = append(tr.blobs, bo)
			t.sizes.Store(b.Digest, b.Size)
		}
	}
	chosen, partial := tr.platforms.Choose(links.Manifests)
	var children []registry.Object
	for _, c := range chosen {
		if co := (registry.Object{Repo: t.repo, Kind: registry.Manifest, Digest: c.Digest}); !tr.seen[co] {
			tr.seen[co] = true
			tr.height[c.Digest] = -1 // until it turns out to be missing
			children = append(children, co)
		}
	}
	if len(tr.blobs) > maxBlobs || len(tr.height) > maxManifests {
		return 0, registry.Errorf(registry.Invalid, "%v: refers to more than %d blobs or %d manifests", o, maxBlobs, maxManifests)
	}
	missing, err := t.missing(ctx, children)
	if err != nil {
		return 0, err
	}
	for _, c := range missing {
		delete(tr.height, c.Digest)
	}
	for _, c := range chosen {
		h, err := t.visit(ctx, tr, c.Digest, depth+1)
		if err != nil {
			return 0, err
		}
		height = max(height, h+1)
		partial = partial || tr.partial[c.Digest]
	}
	if tr.height[d] = height; partial {
		tr.partial[d] = true
		return height, nil
	}
	for len(tr.levels) <= height {
		tr.levels = append(tr.levels, nil)
	}
	tr.levels[height] = append(tr.levels[height], o)
	tr.bodies[o] = m
	return height, nil
}

// readManifest reads and verifies one manifest from the source.
func (t *transfer) readManifest(ctx context.Context, d digest.Digest) (manifest, registry.Links, error) {
	o := registry.Object{Repo: t.im.Repo, Kind: registry.Manifest, Digest: d}
	c, err := t.im.Source.Open(ctx, o, registry.Whole)
	if err != nil {
		return manifest{}, registry.Links{}, atSource(err)
	}
	defer c.Close()
	body, err := io.ReadAll(io.LimitReader(c, registry.MaxManifestSize+1))
	if err != nil {
		return manifest{}, registry.Links{}, atSource(err)
	}
	t.progress(0)
	if len(body) <= registry.MaxManifestSize { // else ParseManifest refuses it
		if err := registry.VerifyBytes(body, d); err != nil {
			return manifest{}, registry.Links{}, atSource(err)
		}
	}
	links, err := registry.ParseManifest(c.Descriptor.MediaType, body)
	if err != nil {
		return manifest{}, registry.Links{}, atSource(err)
	}
	m := manifest{desc: registry.Descriptor{MediaType: links.MediaType, Digest: d, Size: int64(len(body))}, body: body}
	for _, b := range links.Blobs {
		m.blobs = append(m.blobs, b.Digest)
	}
	return m, links, nil
}
