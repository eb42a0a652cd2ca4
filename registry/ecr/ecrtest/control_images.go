package ecrtest

import (
	"cmp"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

type imageOut struct {
	RegistryID     string  `json:"registryId"`
	RepositoryName string  `json:"repositoryName"`
	ImageID        imageID `json:"imageId"`
	Manifest       string  `json:"imageManifest"`
	MediaType      string  `json:"imageManifestMediaType"`
}

func putImage(c call, in struct {
	RepositoryName string        `json:"repositoryName"`
	Manifest       string        `json:"imageManifest"`
	MediaType      string        `json:"imageManifestMediaType"`
	Tag            string        `json:"imageTag"`
	Digest         digest.Digest `json:"imageDigest"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.pushRepo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	if len(in.Manifest) > maxManifest {
		return nil, invalidParameter("imageManifest", "Member must have length less than or equal to "+itoa(maxManifest))
	}
	if len(in.Tag) > 300 {
		return nil, invalidParameter("imageTag", "Member must have length less than or equal to 300")
	}
	d, err := c.putImage(p, in.Tag, in.MediaType, in.Digest, []byte(in.Manifest))
	if err != nil {
		return nil, err
	}
	return map[string]any{"image": imageOut{c.Account, p.Name, imageID{d, in.Tag}, in.Manifest, p.Images[d].MediaType}}, nil
}

func batchGetImage(c call, in struct {
	RepositoryName string    `json:"repositoryName"`
	ImageIDs       []imageID `json:"imageIds"`
	Accepted       []string  `json:"acceptedMediaTypes"`
}) (any, error) {
	if err := checkIDs(in.ImageIDs); err != nil {
		return nil, err
	}
	images, failures := []imageOut{}, []failure{}
	upstream := make([]*failure, len(in.ImageIDs))
	for i, id := range in.ImageIDs {
		upstream[i] = c.pullThrough(c.who, in.RepositoryName, id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	for i, id := range in.ImageIDs {
		if upstream[i] != nil {
			failures = append(failures, *upstream[i])
			continue
		}
		m, fail, err := c.manifest(c.who, p, id, in.Accepted)
		switch {
		case err != nil:
			return nil, err
		case fail != nil:
			failures = append(failures, *fail)
		default:
			images = append(images, imageOut{c.Account, p.Name, imageID{m.digest, id.ImageTag}, string(m.body), m.mediaType})
		}
	}
	return map[string]any{"images": images, "failures": failures}, nil
}

func checkIDs(ids []imageID) error {
	if len(ids) < 1 || len(ids) > 100 {
		return invalidParameter("imageIds", "Member must have length between 1 and 100")
	}
	return nil
}

func batchDeleteImage(c call, in struct {
	RepositoryName string    `json:"repositoryName"`
	ImageIDs       []imageID `json:"imageIds"`
}) (any, error) {
	if err := checkIDs(in.ImageIDs); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	gone, failures := []imageID{}, []failure{}
	for _, id := range in.ImageIDs {
		g, fail, err := c.remove(p, id)
		if err != nil {
			return nil, err
		}
		if fail != nil {
			failures = append(failures, *fail)
		}
		gone = append(gone, g...)
	}
	return map[string]any{"imageIds": gone, "failures": failures}, nil
}

type paging struct {
	NextToken  string `json:"nextToken"`
	MaxResults int    `json:"maxResults"`
}

// size is the page's size; ECR's default is usual and its maximum most.
func (p paging) size(usual, most int) (int, error) {
	if p.MaxResults < 0 || p.MaxResults > most {
		return 0, invalidParameter("maxResults", "Member must have value less than or equal to "+itoa(most))
	}
	return cmp.Or(p.MaxResults, usual), nil
}

type imageFilter struct {
	TagStatus   string `json:"tagStatus"`
	ImageStatus string `json:"imageStatus"`
}

// admits reports whether the filter lets an image pass; without an imageStatus archived ones do not.
func (f imageFilter) admits(i *image) bool {
	switch f.ImageStatus {
	case "ANY":
		return true
	case "ARCHIVED":
		return i.Archived
	}
	return !i.Archived
}

func listImages(c call, in struct {
	paging
	RepositoryName string      `json:"repositoryName"`
	Filter         imageFilter `json:"filter"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	ids := p.list(in.Filter)
	ids, next, err := page(ids, imageID.String, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	return paged("imageIds", ids, next), nil
}

// list returns an entry per tag and one per untagged image.
func (p *repository) list(f imageFilter) []imageID {
	ids := []imageID{}
	for d, i := range p.Images {
		if !f.admits(i) {
			continue
		}
		tags := p.tagsOf(d)
		for _, t := range tags {
			if f.TagStatus != "UNTAGGED" {
				ids = append(ids, imageID{d, t})
			}
		}
		if len(tags) == 0 && f.TagStatus != "TAGGED" {
			ids = append(ids, imageID{ImageDigest: d})
		}
	}
	return ids
}

func paged(name string, items any, next string) map[string]any {
	m := map[string]any{name: items}
	if next != "" {
		m["nextToken"] = next
	}
	return m
}

type imageDetail struct {
	RegistryID     string        `json:"registryId"`
	RepositoryName string        `json:"repositoryName"`
	Digest         digest.Digest `json:"imageDigest"`
	Tags           []string      `json:"imageTags,omitempty"`
	Size           int64         `json:"imageSizeInBytes"`
	PushedAt       epoch         `json:"imagePushedAt"`
	MediaType      string        `json:"imageManifestMediaType"`
	ArtifactType   string        `json:"artifactMediaType,omitempty"`
	Subject        digest.Digest `json:"subjectManifestDigest,omitempty"`
	PulledAt       *epoch        `json:"lastRecordedPullTime,omitempty"`
	Status         string        `json:"imageStatus"`
	ArchivedAt     *epoch        `json:"lastArchivedAt,omitempty"`
	ActivatedAt    *epoch        `json:"lastActivatedAt,omitempty"`
	Scan           *scanStatus   `json:"imageScanStatus,omitempty"`
}

func describeImages(c call, in struct {
	paging
	RepositoryName string      `json:"repositoryName"`
	ImageIDs       []imageID   `json:"imageIds"`
	Filter         imageFilter `json:"filter"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	details := []imageDetail{}
	if in.ImageIDs != nil {
		for _, id := range in.ImageIDs {
			d, img, fail := p.lookup(id)
			if fail != nil || !in.Filter.admits(img) {
				return nil, imageNotFound(c.Registry, p, id)
			}
			details = append(details, c.detail(p, d))
		}
		return map[string]any{"imageDetails": details}, nil
	}
	for d, i := range p.Images {
		tagged := len(p.tagsOf(d)) > 0
		if in.Filter.admits(i) && !(in.Filter.TagStatus == "TAGGED" && !tagged) && !(in.Filter.TagStatus == "UNTAGGED" && tagged) {
			details = append(details, c.detail(p, d))
		}
	}
	details, next, err := page(details, func(d imageDetail) string { return string(d.Digest) }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	return paged("imageDetails", details, next), nil
}

func imageNotFound(r *Registry, p *repository, id imageID) error {
	or := func(s string) string { return cmp.Or(s, "null") }
	return errf("ImageNotFoundException", "The image with imageId {imageDigest:'%s', imageTag:'%s'} does not exist within the repository with name '%s' in the registry with id '%s'",
		or(string(id.ImageDigest)), or(id.ImageTag), p.Name, r.Account)
}

func (r *Registry) detail(p *repository, d digest.Digest) imageDetail {
	i := p.Images[d]
	out := imageDetail{RegistryID: r.Account, RepositoryName: p.Name, Digest: d, Tags: p.tagsOf(d), Size: i.Size, PushedAt: epoch(i.PushedAt),
		MediaType: i.MediaType, ArtifactType: i.ArtifactType, Subject: i.Subject, Status: "ACTIVE"}
	if i.Archived {
		out.Status = "ARCHIVED"
	}
	at := func(t time.Time) *epoch {
		if t.IsZero() {
			return nil
		}
		return (*epoch)(&t)
	}
	out.PulledAt, out.ArchivedAt, out.ActivatedAt = at(i.PulledAt), at(i.ArchivedAt), at(i.ActivatedAt)
	if !i.ScannedAt.IsZero() {
		out.Scan = &scanStatus{"COMPLETE", "The scan was completed successfully."}
	}
	return out
}

type referrer struct {
	Digest       digest.Digest     `json:"digest"`
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Status       string            `json:"artifactStatus"`
}

func listImageReferrers(c call, in struct {
	paging
	RepositoryName string  `json:"repositoryName"`
	Subject        imageID `json:"subjectId"`
	Filter         struct {
		ArtifactTypes []string `json:"artifactTypes"`
		Status        string   `json:"artifactStatus"`
	} `json:"filter"`
}) (any, error) {
	size, err := in.size(20, 50)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	found, next, err := page(p.referrers(in.Subject.ImageDigest, in.Filter.ArtifactTypes, imageFilter{ImageStatus: in.Filter.Status}), func(r referrer) string { return string(r.Digest) }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	return paged("referrers", found, next), nil
}

func (p *repository) referrers(subject digest.Digest, types []string, f imageFilter) []referrer {
	found := []referrer{}
	for d, i := range p.Images {
		if i.Subject == subject && f.admits(i) && (len(types) == 0 || slices.Contains(types, i.ArtifactType)) {
			found = append(found, referrer{d, i.MediaType, i.ArtifactType, i.ManifestSize, i.Annotations, map[bool]string{false: "ACTIVE", true: "ARCHIVED"}[i.Archived]})
		}
	}
	return found
}

// updateImageStorageClass archives an image, which then cannot be pulled, or brings it back.
func updateImageStorageClass(c call, in struct {
	RepositoryName string  `json:"repositoryName"`
	ImageID        imageID `json:"imageId"`
	Class          string  `json:"targetStorageClass"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	d, i, fail := p.lookup(in.ImageID)
	if fail != nil {
		return nil, imageNotFound(c.Registry, p, in.ImageID)
	}
	if in.Class != "ARCHIVE" && in.Class != "STANDARD" {
		return nil, invalidParameter("targetStorageClass", "Member must satisfy enum value set: [STANDARD, ARCHIVE]")
	}
	for _, parent := range p.Images {
		if slices.Contains(parent.Children, d) { // it goes with its index
			return nil, errf("ImageStorageClassUpdateNotSupportedException", "The storage class of an image that a manifest list refers to cannot be updated")
		}
	}
	if archive := in.Class == "ARCHIVE"; archive != i.Archived {
		i.archive(archive, c.emu.now())
		for _, child := range i.Children {
			if p.Images[child] != nil {
				p.Images[child].archive(archive, c.emu.now())
			}
		}
		c.publishClass(p, d, in.Class)
	}
	out := c.detail(p, d)
	return map[string]any{"registryId": c.Account, "repositoryName": p.Name, "imageId": imageID{ImageDigest: d}, "imageStatus": out.Status}, c.save(p)
}
