package ecrtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// imageID names an image by digest, tag or both.
type imageID struct {
	ImageDigest digest.Digest `json:"imageDigest,omitempty"`
	ImageTag    string        `json:"imageTag,omitempty"`
}

func (id imageID) String() string {
	switch {
	case id.ImageDigest == "":
		return ":" + id.ImageTag
	case id.ImageTag == "":
		return "@" + id.ImageDigest.String()
	}
	return ":" + id.ImageTag + "@" + id.ImageDigest.String()
}

// putImage is PutImage: store, with its event and ECR's own replication. The caller holds r.mu.
func (r *Registry) putImage(p *repository, tag, mediaType string, want digest.Digest, body []byte) (digest.Digest, error) {
	d, err := r.store(p, tag, mediaType, want, body)
	if err != nil {
		return d, err
	}
	r.publish(p, "PUSH", d, tag, p.Images[d])
	if r.replicate(p, d, tag) {
		return d, r.save(p)
	}
	return d, nil
}

// store stores an image. Layers and children must be there, as ECR insists. want is the digest that the caller expects, or "".
// What changes nothing is ImageAlreadyExistsException, with the digest. An archived image comes back. The caller holds r.mu.
func (r *Registry) store(p *repository, tag, mediaType string, want digest.Digest, body []byte) (digest.Digest, error) {
	links, err := r.emu.checkManifest(mediaType, body)
	if err != nil {
		return "", err
	}
	d := digest.FromBytes(body)
	if want != "" && want.Algorithm() == digest.SHA512 && want.Validate() == nil {
		d = digest.SHA512.FromBytes(body)
	}
	if want != "" && want != d {
		return d, errf("ImageDigestDoesNotMatchException",
			"The image with digest '%s' in repository '%s' and registry ID '%s' does not match the image digest that Amazon ECR has calculated.", want, p.Name, r.Account)
	}
	img := &image{MediaType: links.MediaType, ArtifactType: links.ArtifactType, ManifestSize: int64(len(body)),
		Annotations: links.Annotations, PushedAt: r.emu.now()}
	if links.Subject != nil { // it may come later, or never (OCI distribution specification, "Pushing Manifests with Subject")
		img.Subject = links.Subject.Digest
	}
	var missing []string
	for _, b := range links.Blobs {
		l, ok := p.Layers[b.Digest]
		if !ok {
			missing = append(missing, b.Digest.String())
		}
		img.Size += l.Size
		img.Layers = append(img.Layers, b.Digest)
	}
	if missing != nil {
		return d, errf("LayersNotFoundException",
			"Layers with digests '[%s]' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist", strings.Join(missing, ", "), p.Name, r.Account)
	}
	for _, c := range links.Manifests {
		child := p.Images[c.Digest]
		if child == nil {
			missing = append(missing, c.Digest.String())
			continue
		}
		img.Size = max(img.Size, child.Size)
		img.Children = append(img.Children, c.Digest)
	}
	if missing != nil {
		return d, errf("ReferencedImagesNotFoundException",
			"Images with digests '[%s]' required for pushing image into repository with name '%s' in the registry with id '%s' do not exist", strings.Join(missing, ", "), p.Name, r.Account)
	}
	old, tagged := p.Tags[tag]
	if tagged && p.immutable(tag) { // an identical push as well: aws/containers-roadmap#2179, #2380
		return d, errf("ImageTagAlreadyExistsException",
			"The image tag '%s' already exists in the '%s' repository and cannot be overwritten because the tag is immutable.", tag, p.Name)
	}
	known := p.Images[d]
	if known != nil && !known.Archived && (tag == "" || old == d) {
		return d, errf("ImageAlreadyExistsException", "Image with digest '%s' and tag '%s' already exists in the repository with name '%s' in registry with id '%s'", d, tag, p.Name, r.Account)
	}
	if limit := r.emu.limit("ImagesPerRepository", 100_000); known == nil && len(p.Images) >= limit {
		return d, errf("LimitExceededException", "The repository with name '%s' in the registry with id '%s' already has the maximum allowed number of images which is '%d'", p.Name, r.Account, limit)
	}
	if limit := r.emu.limit("TagsPerImage", 1000); tag != "" && old != d && len(p.tagsOf(d)) >= limit {
		return d, errf("LimitExceededException", "The image with digest '%s' in the repository with name '%s' already has the maximum allowed number of tags which is '%d'", d, p.Name, limit)
	}
	if known == nil {
		if err := put(r.emu.content, d, body); err != nil {
			return d, err
		}
		p.Images[d] = img
	} else if known.Archived {
		known.archive(false, r.emu.now())
	}
	if tag != "" {
		p.Tags[tag] = d
	}
	return d, r.save(p)
}

const invalidJSON = "Invalid JSON syntax" // ECR's text for every manifest that its schema refuses

// checkManifest parses a manifest and refuses what ECR's strict schema refuses.
func (e *Emulator) checkManifest(mediaType string, body []byte) (registry.Links, error) {
	var own struct {
		MediaType string `json:"mediaType"`
		Config    *struct {
			Annotations map[string]string `json:"annotations"`
		} `json:"config"`
		Subject *struct {
			Platform *struct{} `json:"platform"`
		} `json:"subject"`
		Layers []struct{} `json:"layers"`
	}
	json.Unmarshal(body, &own) // ParseManifest reports what is not JSON
	if own.MediaType == "" && mediaType == "" {
		return registry.Links{}, invalidParameter("ImageManifest", invalidJSON)
	}
	if mediaType == "" {
		mediaType = own.MediaType
	}
	links, err := registry.ParseManifest(mediaType, body)
	if err != nil || (own.MediaType != "" && own.MediaType != mediaType) {
		return links, invalidParameter("ImageManifest", invalidJSON)
	}
	if e.opt.Quirks.LaxManifests {
		return links, nil
	}
	if own.Subject != nil && own.Subject.Platform != nil || // nydus-snapshotter strips it for ECR
		own.Config != nil && own.Config.Annotations != nil { // goharbor/acceleration-service#353
		return links, invalidParameter("ImageManifest", invalidJSON)
	}
	if !registry.IsIndex(mediaType) && len(own.Layers) == 0 { // werf/werf#2558
		return links, errf("InvalidParameterException", "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Image has to have at least 1 layer'")
	}
	return links, nil
}

// lookup resolves id to an image of p; the failure's code is one of the failureCode values of BatchGetImage. The caller
// holds r.mu.
func (p *repository) lookup(id imageID) (digest.Digest, *image, *failure) {
	fail := func(code, format string, args ...any) (digest.Digest, *image, *failure) {
		return "", nil, &failure{ImageID: id, Code: code, Reason: fmt.Sprintf(format, args...)}
	}
	d := id.ImageDigest
	switch {
	case d == "" && id.ImageTag == "":
		return fail("MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null")
	case d != "" && d.Validate() != nil:
		return fail("InvalidImageDigest", "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	case id.ImageTag != "":
		td, ok := p.Tags[id.ImageTag]
		if !ok {
			return fail("ImageNotFound", "Requested image not found")
		}
		if d != "" && d != td {
			return fail("ImageTagDoesNotMatchDigest", "Invalid request parameters: tag %s does not match digest %s", id.ImageTag, d)
		}
		d = td
	}
	img := p.Images[d]
	if img == nil {
		return fail("ImageNotFound", "Requested image not found")
	}
	return d, img, nil
}

// remove deletes what id names: a tag, and the image with its last tag; or an image by digest with all its tags. It returns
// the pairs removed. The caller holds r.mu.
func (r *Registry) remove(p *repository, id imageID) ([]imageID, *failure, error) {
	d, img, fail := p.lookup(id)
	if fail != nil {
		return nil, fail, nil
	}
	tags := p.tagsOf(d)
	if id.ImageTag != "" && len(tags) > 1 {
		delete(p.Tags, id.ImageTag)
		r.publish(p, "DELETE", d, id.ImageTag, img)
		return []imageID{{d, id.ImageTag}}, nil, r.save(p)
	}
	for parent, i := range p.Images {
		if slices.Contains(i.Children, d) {
			if id.ImageTag != "" { // the tag goes, the image stays
				delete(p.Tags, id.ImageTag)
				r.publish(p, "DELETE", d, id.ImageTag, img)
				return []imageID{{d, id.ImageTag}}, nil, r.save(p)
			}
			return nil, &failure{ImageID: id, Code: "ImageReferencedByManifestList", Reason: "Requested image referenced by manifest list: [" + parent.String() + "]"}, nil
		}
	}
	delete(p.Images, d)
	var gone []imageID
	for _, t := range tags {
		delete(p.Tags, t)
		gone = append(gone, imageID{d, t})
	}
	if gone == nil {
		gone = []imageID{{ImageDigest: d}}
	}
	for _, g := range gone {
		r.publish(p, "DELETE", d, g.ImageTag, img)
	}
	return gone, nil, r.save(p)
}

// failure is one entry of a batch operation's failures.
type failure struct {
	ImageID imageID `json:"imageId"`
	Code    string  `json:"failureCode"`
	Reason  string  `json:"failureReason"`
}
