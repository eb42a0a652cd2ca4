package ecrtest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// imageID is the reference as a control operation takes it.
func (q *v2Request) imageID() imageID {
	if strings.Contains(q.ref, ":") {
		return imageID{ImageDigest: digest.Digest(q.ref)}
	}
	return imageID{ImageTag: q.ref}
}

// accepted returns the manifest types of the Accept headers; none means all.
func accepted(h http.Header) []string {
	var types []string
	for _, line := range h.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			t, _, _ := strings.Cut(part, ";")
			if t = strings.TrimSpace(t); t != "" {
				types = append(types, t)
			}
		}
	}
	return types
}

// getManifest answers GET and HEAD. Only HEAD tells the digest (oras-project/oras-go#237), and has an empty Sizes header.
func (q *v2Request) getManifest(w http.ResponseWriter) error {
	if err := q.may("BatchGetImage"); err != nil {
		return err
	}
	if fail := q.pullThrough(q.who, q.name, q.imageID()); fail != nil {
		return errf(fail.Code, "%s", fail.Reason)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.repo(q.name)
	if err != nil {
		return err
	}
	m, fail, err := q.manifest(q.who, p, q.imageID(), accepted(q.http.Header))
	if err != nil {
		return err
	}
	if fail != nil {
		return errf("ImageNotFoundException", "Requested image not found")
	}
	if q.http.Method == http.MethodHead {
		w.Header().Set("Docker-Content-Digest", m.digest.String())
		w.Header().Set("Sizes", "")
		w.Header().Set("Content-Type", m.mediaType)
		w.Header().Set("Content-Length", strconv.Itoa(len(m.body)))
		w.WriteHeader(http.StatusOK)
		return nil
	}
	writeBody(w, http.StatusOK, m.mediaType, m.body)
	return nil
}

// putManifest is PutImage. A push that changes nothing is a 201 here.
func (q *v2Request) putManifest(w http.ResponseWriter) error {
	if err := q.may("PutImage"); err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.http.Body, maxManifest))
	if err != nil {
		return invalidParameter("ImageManifest", "Member must have length less than or equal to "+strconv.Itoa(maxManifest))
	}
	id := q.imageID()
	if id.ImageDigest != "" && id.ImageDigest.Validate() != nil {
		return invalidParameter("imageDigest", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	mediaType, _, _ := strings.Cut(q.http.Header.Get("Content-Type"), ";")
	if mediaType == "application/json" || mediaType == "application/octet-stream" {
		mediaType = ""
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.pushRepo(q.name)
	if err != nil {
		return err
	}
	d, err := q.putImage(p, id.ImageTag, mediaType, id.ImageDigest, body)
	if err != nil {
		a := asAPI(err)
		switch a.Type {
		case "ImageAlreadyExistsException":
		case "LayersNotFoundException":
			v2Fail(w, q.http, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN", a.Message)
			return nil
		default:
			return err
		}
	}
	if s := p.Images[d].Subject; s != "" {
		w.Header().Set("OCI-Subject", s.String())
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Location", baseURL(q.http)+"/v2/"+q.name+"/manifests/"+d.String())
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
	return nil
}

func (q *v2Request) deleteManifest(w http.ResponseWriter) error {
	if err := q.may("BatchDeleteImage"); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.repo(q.name)
	if err != nil {
		return err
	}
	if q.imageID().ImageTag != "" && q.emu.opt.Quirks.TagDeleteFails {
		return errf("UnsupportedOperation", "the deletion of a tag")
	}
	_, fail, err := q.remove(p, q.imageID())
	if err != nil {
		return err
	}
	if fail != nil {
		if fail.Code == "ImageReferencedByManifestList" {
			return errf("UnsupportedOperation", "%s", fail.Reason)
		}
		return errf("ImageNotFoundException", "Requested image not found")
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// tags answers tags/list: 100 a page, at most 1000, an opaque last, an absolute Link, no order, text/plain
// (google/go-containerregistry#681, #1091; cue-labs/oci).
func (q *v2Request) tags(w http.ResponseWriter) error {
	if err := q.may("ListImages"); err != nil {
		return err
	}
	query := q.http.URL.Query()
	n := 100
	if s := query.Get("n"); s != "" {
		v, err := strconv.Atoi(s)
		if err != nil || v < 1 {
			return invalidParameter("maxResults", "Member must have value greater than or equal to 1")
		}
		if v > 1000 {
			return invalidParameter("maxResults", "Member must have value less than or equal to 1000")
		}
		n = v
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.repo(q.name)
	if err != nil {
		return err
	}
	ids, next, err := page(p.list(imageFilter{TagStatus: "TAGGED"}), imageID.String, query.Get("last"), n)
	if err != nil {
		return err
	}
	tags := []string{}
	for _, id := range ids {
		tags = append(tags, id.ImageTag)
	}
	if next != "" {
		v := url.Values{"last": {next}}
		if query.Has("n") {
			v.Set("n", query.Get("n"))
		}
		w.Header().Set("Link", "<"+baseURL(q.http)+"/v2/"+q.name+"/tags/list?"+v.Encode()+`>; rel="next"`)
	}
	b, _ := json.Marshal(map[string]any{"name": q.name, "tags": tags})
	writeBody(w, http.StatusOK, "text/plain; charset=utf-8", b)
	return nil
}

func (q *v2Request) listReferrers(w http.ResponseWriter) error {
	if err := q.may("BatchGetImage"); err != nil {
		return err
	}
	d := digest.Digest(q.ref)
	if d.Validate() != nil {
		return invalidParameter("imageDigest", "must satisfy regular expression '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	p, err := q.repo(q.name)
	if err != nil {
		return err
	}
	var types []string
	if t := q.http.URL.Query().Get("artifactType"); t != "" {
		types = []string{t}
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	ix := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []registry.Descriptor{}}
	ix.SchemaVersion = 2
	for _, r := range p.referrers(d, types, imageFilter{}) {
		ix.Manifests = append(ix.Manifests, registry.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType, Annotations: r.Annotations})
	}
	b, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	writeBody(w, http.StatusOK, ocispec.MediaTypeImageIndex, b)
	return nil
}
