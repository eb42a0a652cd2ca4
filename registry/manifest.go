package registry

import (
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's media types of manifests; ECR stores and serves them beside the OCI ones.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ManifestTypes are the media types that a reader offers in Accept, all of them always: ECR converts a tag's manifest, and so
// changes its digest, for a client that does not list the stored type (Amazon ECR User Guide, "Container image manifest
// format support").
func ManifestTypes() []string {
	return []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, MediaTypeDockerList, MediaTypeDockerManifest}
}

// IsIndex reports whether the media type is that of an index (manifest list).
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == MediaTypeDockerList
}

// Links is what a manifest refers to: the edges along which an image is copied.
type Links struct {
	MediaType    string
	ArtifactType string       // of an artifact: artifactType, else the config's media type
	Blobs        []Descriptor // config first, then layers; those that only a foreign URL serves are left out
	Manifests    []Descriptor // an index's children
	Subject      *Descriptor
	Annotations  map[string]string
}

// ManifestType returns what kind of manifest body is: what it says itself, if that is one of ManifestTypes, else what its registry said
// besides. The digest vouches for body alone.
func ManifestType(said string, body []byte) string {
	var m struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(body, &m) == nil && slices.Contains(ManifestTypes(), m.MediaType) {
		return m.MediaType
	}
	return said
}

// ParseManifest reads what body refers to. mediaType is what the registry said; "" takes the body's own. What is neither a
// manifest nor an index is Invalid. Every digest returned has been validated.
func ParseManifest(mediaType string, body []byte) (Links, error) {
	var m struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *Descriptor       `json:"config"`
		Layers        []Descriptor      `json:"layers"`
		Manifests     []Descriptor      `json:"manifests"`
		Subject       *Descriptor       `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
	}
	if len(body) > MaxManifestSize {
		return Links{}, Errorf(Invalid, "parse manifest: %d bytes, more than %d", len(body), MaxManifestSize)
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return Links{}, Errorf(Invalid, "parse manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return Links{}, Errorf(Invalid, "parse manifest: schema version %d", m.SchemaVersion)
	}
	if mediaType == "" {
		if mediaType = m.MediaType; mediaType == "" { // OCI allows its absence: image-spec, manifest.md "mediaType"
			mediaType = ocispec.MediaTypeImageManifest
			if m.Manifests != nil {
				mediaType = ocispec.MediaTypeImageIndex
			}
		}
	}
	l := Links{MediaType: mediaType, ArtifactType: m.ArtifactType, Subject: m.Subject, Annotations: m.Annotations}
	switch {
	case IsIndex(mediaType):
		l.Manifests = m.Manifests
	case slices.Contains(ManifestTypes(), mediaType):
		if m.Config == nil {
			return Links{}, Errorf(Invalid, "parse manifest: no config")
		}
		l.Blobs = append(l.Blobs, *m.Config)
		for _, d := range m.Layers {
			if len(d.URLs) == 0 {
				l.Blobs = append(l.Blobs, d)
			}
		}
		if l.ArtifactType == "" {
			l.ArtifactType = m.Config.MediaType
		}
	default:
		return Links{}, Errorf(Invalid, "parse manifest: unknown media type %q", mediaType)
	}
	all := slices.Concat(l.Blobs, l.Manifests)
	if l.Subject != nil {
		all = append(all, *l.Subject)
	}
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 {
			return Links{}, Errorf(Invalid, "parse manifest: descriptor %q of %d bytes: invalid", d.Digest, d.Size)
		}
	}
	return l, nil
}

// DescriptorOf describes body under mediaType by its sha256.
func DescriptorOf(mediaType string, body []byte) Descriptor {
	return Descriptor{MediaType: mediaType, Digest: digest.FromBytes(body), Size: int64(len(body))}
}
