// Package registrytest is what tests of registries share: the behaviour suite that every Reader and Writer passes (Run), a
// wrapper that makes any of them fail on purpose (Faulty), and images to put into them.
//
// Limitations: imported by tests only.
package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Node is a manifest with all that must be pushed before it.
type Node struct {
	Desc     registry.Descriptor
	Body     []byte
	Blobs    []Blob
	Children []Node
}

// Blob is a blob with its bytes.
type Blob struct {
	Desc registry.Descriptor
	Body []byte
}

// Bytes returns n bytes that depend on seed alone and do not compress.
func Bytes(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), 1})
	b := make([]byte, n)
	r.Read(b)
	return b
}

// NewBlob describes body under mediaType.
func NewBlob(mediaType string, body []byte) Blob {
	return Blob{registry.DescriptorOf(mediaType, body), body}
}

// Image returns a single-platform OCI image whose layers have the given sizes in bytes; seed makes its content unique.
// The layers are random bytes, not tar archives: for pulls that do not unpack.
func Image(seed uint64, layers ...int) Node {
	return ImageFor(ocispec.Platform{OS: "linux", Architecture: "amd64"}, seed, layers...)
}

// ImageFor is Image for a platform.
func ImageFor(p ocispec.Platform, seed uint64, layers ...int) Node {
	var blobs []Blob
	cfg := ocispec.Image{Platform: p, Config: ocispec.ImageConfig{Labels: map[string]string{"seed": fmt.Sprint(seed)}}}
	cfg.RootFS.Type = "layers"
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for i, size := range layers {
		b := NewBlob(ocispec.MediaTypeImageLayerGzip, Bytes(seed*1000+uint64(i), size))
		blobs = append(blobs, b)
		m.Layers = append(m.Layers, b.Desc)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, b.Desc.Digest)
	}
	config := NewBlob(ocispec.MediaTypeImageConfig, encode(cfg))
	m.Config = config.Desc
	return node(ocispec.MediaTypeImageManifest, m, append([]Blob{config}, blobs...), nil)
}

// Index returns an OCI index over children; child i gets the platform linux/arch i of amd64, arm64, s390x, ppc64le.
func Index(children ...Node) Node {
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for i, c := range children {
		d := c.Desc
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: []string{"amd64", "arm64", "s390x", "ppc64le"}[i%4]}
		ix.Manifests = append(ix.Manifests, d)
	}
	return node(ocispec.MediaTypeImageIndex, ix, nil, children)
}

// Referrer returns an artifact manifest of artifactType about subject.
func Referrer(subject registry.Descriptor, artifactType string, body []byte) Node {
	empty := Blob{ocispec.DescriptorEmptyJSON, ocispec.DescriptorEmptyJSON.Data}
	empty.Desc.Data = nil
	layer := NewBlob("application/octet-stream", body)
	return node(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType,
		Config: empty.Desc, Layers: []registry.Descriptor{layer.Desc}, Subject: &subject,
		Annotations: map[string]string{"org.example.test": "referrer"},
	}, []Blob{empty, layer}, nil)
}

func node(mediaType string, v any, blobs []Blob, children []Node) Node {
	body := encode(v)
	return Node{registry.DescriptorOf(mediaType, body), body, blobs, children}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // unreachable: every type here can be encoded
	}
	return b
}

// Push writes n bottom-up to w, creating the repository where w can, and the tag (unless "") last.
func Push(t testing.TB, w registry.Writer, repo, tag string, n Node) {
	t.Helper()
	ctx := context.Background()
	if p, ok := w.(registry.Provisioner); ok {
		if err := p.CreateRepository(ctx, repo); err != nil {
			t.Fatalf("create repository %s: %v", repo, err)
		}
	}
	push(t, ctx, w, repo, tag, n)
}

func push(t testing.TB, ctx context.Context, w registry.Writer, repo, tag string, n Node) {
	t.Helper()
	for _, b := range n.Blobs {
		if err := w.PutBlob(ctx, repo, b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Fatalf("put blob %s@%s: %v", repo, b.Desc.Digest, err)
		}
	}
	for _, c := range n.Children {
		push(t, ctx, w, repo, "", c)
	}
	if err := w.PutManifest(ctx, repo, tag, n.Desc, n.Body); err != nil {
		t.Fatalf("put manifest %s:%s@%s: %v", repo, tag, n.Desc.Digest, err)
	}
}

// Objects returns all that n consists of, as objects of repo, bottom-up.
func (n Node) Objects(repo string) []registry.Object {
	var all []registry.Object
	for _, b := range n.Blobs {
		all = append(all, registry.Object{Repo: repo, Kind: registry.Blob, Digest: b.Desc.Digest})
	}
	for _, c := range n.Children {
		all = append(all, c.Objects(repo)...)
	}
	return append(all, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: n.Desc.Digest})
}
