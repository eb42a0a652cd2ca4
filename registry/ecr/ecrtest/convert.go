package ecrtest

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// manifest is a stored or converted manifest on its way out.
type manifest struct {
	digest    digest.Digest
	mediaType string
	body      []byte
}

// manifest returns the manifest that id names in a form that the client accepts; nothing accepted means everything. A tag's
// manifest is converted between OCI and Docker for a client that does not accept what is stored, which changes its digest
// (Amazon ECR User Guide, "image-manifest-formats"); a digest's never. The caller holds r.mu.
func (r *Registry) manifest(who *principal, p *repository, id imageID, accepted []string) (manifest, *failure, error) {
	d, img, fail := p.lookup(id)
	if fail != nil {
		return manifest{}, fail, nil
	}
	absent := &failure{ImageID: id, Code: "ImageNotFound", Reason: "Requested image not found"}
	if img.Archived {
		return manifest{}, absent, nil
	}
	body, err := get(r.emu.content, d)
	if err != nil {
		return manifest{}, nil, err
	}
	if !slices.Contains(r.PullExclusions, who.arn(r.Region)) {
		img.PulledAt = r.emu.now()
	}
	if len(accepted) == 0 || slices.Contains(accepted, img.MediaType) || slices.Contains(accepted, "*/*") {
		return manifest{d, img.MediaType, body}, nil, nil
	}
	to := ocispec.MediaTypeImageManifest
	if img.MediaType == to {
		to = registry.MediaTypeDockerManifest
	}
	if id.ImageDigest != "" || registry.IsIndex(img.MediaType) || !slices.Contains(accepted, to) || r.emu.opt.Quirks.NoConversion {
		return manifest{}, absent, nil
	}
	body, err = convert(body, to)
	if err != nil {
		return manifest{}, nil, err
	}
	return manifest{digest.FromBytes(body), to, body}, nil, nil
}

// convert rewrites the media types of an image manifest to those of the other family.
func convert(body []byte, to string) ([]byte, error) {
	var m map[string]any
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	pairs := []string{
		ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json",
		ocispec.MediaTypeImageLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}
	if to == ocispec.MediaTypeImageManifest {
		slices.Reverse(pairs)
	}
	replace := strings.NewReplacer(pairs...)
	rewrite := func(v any) {
		if desc, ok := v.(map[string]any); ok {
			if t, ok := desc["mediaType"].(string); ok {
				desc["mediaType"] = replace.Replace(t)
			}
		}
	}
	m["mediaType"] = to
	rewrite(m["config"])
	layers, _ := m["layers"].([]any)
	for _, l := range layers {
		rewrite(l)
	}
	return json.Marshal(m)
}
