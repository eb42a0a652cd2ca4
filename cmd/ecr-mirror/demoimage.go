package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// demoImage is a small real image: docker can pull and unpack it. Its layer holds a greeting and size random bytes.
type demoImage struct {
	manifest registry.Descriptor
	body     []byte
	blobs    map[digest.Digest]blob
}

type blob struct {
	desc registry.Descriptor
	body []byte
}

func newDemoImage(greeting string, seed byte, size int) (demoImage, error) {
	random := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(random)
	var plain bytes.Buffer
	tw := tar.NewWriter(&plain)
	for name, body := range map[string][]byte{"greeting.txt": []byte(greeting + "\n"), "random.bin": random} {
		if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Format: tar.FormatPAX}); err != nil {
			return demoImage{}, err
		}
		if _, err := tw.Write(body); err != nil {
			return demoImage{}, err
		}
	}
	if err := tw.Close(); err != nil {
		return demoImage{}, err
	}
	var packed bytes.Buffer
	gz := gzip.NewWriter(&packed)
	if _, err := io.Copy(gz, bytes.NewReader(plain.Bytes())); err != nil {
		return demoImage{}, err
	}
	if err := gz.Close(); err != nil {
		return demoImage{}, err
	}
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain.Bytes())}},
	})
	if err != nil {
		return demoImage{}, err
	}
	img := demoImage{blobs: make(map[digest.Digest]blob)}
	add := func(mediaType string, body []byte) registry.Descriptor {
		d := registry.DescriptorOf(mediaType, body)
		img.blobs[d.Digest] = blob{d, body}
		return d
	}
	img.body, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: add(ocispec.MediaTypeImageConfig, config),
		Layers: []registry.Descriptor{add(ocispec.MediaTypeImageLayerGzip, packed.Bytes())},
	})
	img.manifest = registry.DescriptorOf(ocispec.MediaTypeImageManifest, img.body)
	return img, err
}

// push writes the image as docker push does: blobs first, then the manifest under its tag.
func (i demoImage) push(ctx context.Context, w registry.Writer, repo, tag string) error {
	for _, b := range i.blobs {
		if err := w.PutBlob(ctx, repo, b.desc, bytes.NewReader(b.body)); err != nil {
			return fmt.Errorf("push blob %s: %w", b.desc.Digest, err)
		}
	}
	if err := w.PutManifest(ctx, repo, tag, i.manifest, i.body); err != nil {
		return fmt.Errorf("push manifest: %w", err)
	}
	return nil
}

// pull reads repo:tag and everything under it from r, verifies every digest, and returns how many bytes came.
func pull(ctx context.Context, r registry.Reader, repo, tag string) (d registry.Descriptor, n int64, err error) {
	if d, err = r.Resolve(ctx, repo, tag); err != nil {
		return d, 0, fmt.Errorf("resolve %s:%s: %w", repo, tag, err)
	}
	read := func(kind registry.Kind, d registry.Descriptor) ([]byte, error) {
		c, err := r.Open(ctx, registry.Object{Repo: repo, Kind: kind, Digest: d.Digest}, registry.Whole)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		b, err := io.ReadAll(registry.Verify(c, d.Digest, d.Size))
		n += int64(len(b))
		return b, err
	}
	body, err := read(registry.Manifest, d)
	if err != nil {
		return d, n, fmt.Errorf("pull manifest: %w", err)
	}
	links, err := registry.ParseManifest(d.MediaType, body)
	if err != nil {
		return d, n, err
	}
	for _, b := range links.Blobs {
		if _, err := read(registry.Blob, b); err != nil {
			return d, n, fmt.Errorf("pull blob %s: %w", b.Digest, err)
		}
	}
	return d, n, nil
}

// size is the bytes of its blobs.
func (i demoImage) size() (n int64) {
	for _, b := range i.blobs {
		n += b.desc.Size
	}
	return n
}
