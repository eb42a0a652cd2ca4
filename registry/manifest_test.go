package registry_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

const (
	hexA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hexB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func desc(d string, size int64) registry.Descriptor {
	return registry.Descriptor{Digest: digest.Digest(d), Size: size}
}

func TestParseManifest(t *testing.T) {
	config := fmt.Sprintf(`"config":{"mediaType":"application/x.config","digest":%q,"size":1}`, hexA)
	withType := desc(hexA, 1)
	withType.MediaType = "application/x.config"
	b := desc(hexB, 2)
	for _, tt := range []struct {
		name, mediaType, body string
		want                  registry.Links
		class                 registry.Class // Internal: no error
	}{
		{name: "oci image", mediaType: ocispec.MediaTypeImageManifest,
			body: `{"schemaVersion":2,` + config + `,"layers":[{"digest":"` + hexB + `","size":2}]}`,
			want: registry.Links{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x.config", Blobs: []registry.Descriptor{withType, b}}},
		{name: "the body's own type", body: `{"schemaVersion":2,"mediaType":"` + registry.MediaTypeDockerManifest + `",` + config + `}`,
			want: registry.Links{MediaType: registry.MediaTypeDockerManifest, ArtifactType: "application/x.config", Blobs: []registry.Descriptor{withType}}},
		{name: "no type anywhere: image", body: `{"schemaVersion":2,` + config + `}`,
			want: registry.Links{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x.config", Blobs: []registry.Descriptor{withType}}},
		{name: "no type anywhere: index", body: `{"schemaVersion":2,"manifests":[{"digest":"` + hexB + `","size":2}]}`,
			want: registry.Links{MediaType: ocispec.MediaTypeImageIndex, Manifests: []registry.Descriptor{b}}},
		{name: "empty index", body: `{"schemaVersion":2,"manifests":[]}`, want: registry.Links{MediaType: ocispec.MediaTypeImageIndex, Manifests: []registry.Descriptor{}}},
		{name: "docker list", mediaType: registry.MediaTypeDockerList, body: `{"schemaVersion":2,"manifests":[{"digest":"` + hexB + `","size":2}]}`,
			want: registry.Links{MediaType: registry.MediaTypeDockerList, Manifests: []registry.Descriptor{b}}},
		{name: "artifact about a subject", mediaType: ocispec.MediaTypeImageManifest,
			body: `{"schemaVersion":2,"artifactType":"application/x.sbom",` + config + `,"subject":{"digest":"` + hexB + `","size":2},"annotations":{"k":"v"}}`,
			want: registry.Links{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x.sbom", Blobs: []registry.Descriptor{withType}, Subject: &b,
				Annotations: map[string]string{"k": "v"}}},
		{name: "foreign layers are left out", mediaType: ocispec.MediaTypeImageManifest,
			body: `{"schemaVersion":2,` + config + `,"layers":[{"digest":"` + hexB + `","size":2,"urls":["https://example.test/layer"]}]}`,
			want: registry.Links{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x.config", Blobs: []registry.Descriptor{withType}}},

		{name: "not json", body: `<html>`, class: registry.Invalid},
		{name: "nothing", body: ``, class: registry.Invalid},
		{name: "schema 1", body: `{"schemaVersion":1,"fsLayers":[]}`, class: registry.Invalid},
		{name: "no schema version", body: `{` + config + `}`, class: registry.Invalid},
		{name: "no config", mediaType: ocispec.MediaTypeImageManifest, body: `{"schemaVersion":2}`, class: registry.Invalid},
		{name: "unknown type", mediaType: "text/html", body: `{"schemaVersion":2,` + config + `}`, class: registry.Invalid},
		{name: "bad digest of a layer", body: `{"schemaVersion":2,` + config + `,"layers":[{"digest":"sha256:../../etc","size":2}]}`, class: registry.Invalid},
		{name: "bad digest of the config", body: `{"schemaVersion":2,"config":{"digest":"","size":1}}`, class: registry.Invalid},
		{name: "bad digest of the subject", body: `{"schemaVersion":2,` + config + `,"subject":{"digest":"md5:0","size":1}}`, class: registry.Invalid},
		{name: "bad digest of a child", body: `{"schemaVersion":2,"manifests":[{"digest":"x","size":1}]}`, class: registry.Invalid},
		{name: "negative size", body: `{"schemaVersion":2,"manifests":[{"digest":"` + hexA + `","size":-1}]}`, class: registry.Invalid},
		{name: "too large", body: `{"schemaVersion":2,` + config + `}` + strings.Repeat(" ", registry.MaxManifestSize), class: registry.Invalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := registry.ParseManifest(tt.mediaType, []byte(tt.body))
			if (err != nil) != (tt.class != registry.Internal) || (err != nil && registry.ClassOf(err) != tt.class) {
				t.Fatalf("error %v, want class %v", err, tt.class)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseBuiltImages(t *testing.T) {
	image := registrytest.Image(1, 10, 20)
	index := registrytest.Index(image, registrytest.Image(2, 10))
	links, err := registry.ParseManifest(index.Desc.MediaType, index.Body)
	if err != nil || len(links.Manifests) != 2 || links.Manifests[0].Digest != image.Desc.Digest || links.Manifests[1].Platform.Architecture != "arm64" {
		t.Errorf("index: %+v, %v", links, err)
	}
	links, err = registry.ParseManifest(image.Desc.MediaType, image.Body)
	if err != nil || len(links.Blobs) != 3 || links.Blobs[0].Digest != image.Blobs[0].Desc.Digest {
		t.Errorf("image: %+v, %v", links, err)
	}
	if d := registry.DescriptorOf(image.Desc.MediaType, image.Body); d.Digest != image.Desc.Digest || d.Size != int64(len(image.Body)) {
		t.Errorf("descriptor: %+v", d)
	}
}

// Whatever the bytes, what ParseManifest lets through is safe to make paths and allocations of.
func FuzzParseManifest(f *testing.F) {
	image := registrytest.Image(1, 10)
	f.Add("", image.Body)
	f.Add(ocispec.MediaTypeImageIndex, registrytest.Index(image).Body)
	f.Add("", registrytest.Referrer(image.Desc, "application/x.sbom", nil).Body)
	f.Add(registry.MediaTypeDockerList, []byte(`{"schemaVersion":2,"manifests":null}`))
	f.Add("", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:../..","size":-1},"layers":[null]}`))
	f.Fuzz(func(t *testing.T, mediaType string, body []byte) {
		l, err := registry.ParseManifest(mediaType, body)
		if err != nil {
			if registry.ClassOf(err) != registry.Invalid {
				t.Fatalf("class of %v", err)
			}
			return
		}
		if !slices.Contains(registry.ManifestTypes(), l.MediaType) || !json.Valid(body) {
			t.Fatalf("let %q through", l.MediaType)
		}
		all := slices.Concat(l.Blobs, l.Manifests)
		if l.Subject != nil {
			all = append(all, *l.Subject)
		}
		for _, d := range all {
			if d.Digest.Validate() != nil || d.Size < 0 {
				t.Fatalf("let %+v through", d)
			}
		}
		if again, err := registry.ParseManifest(l.MediaType, body); err != nil || cmp.Diff(l, again) != "" {
			t.Fatalf("parsed again: %v, %+v", err, again)
		}
	})
}
