package wire

import (
	"net/url"
	"strconv"

	"github.com/opencontainers/go-digest"
)

// ManifestPath returns the path of a manifest; ref is a tag or a digest. The names given to the functions here must be
// valid: grammar leaves nothing to escape.
func ManifestPath(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }

// BlobPath returns the path of a blob.
func BlobPath(repo string, d digest.Digest) string { return "/v2/" + repo + "/blobs/" + d.String() }

// UploadsPath returns the path where uploads begin.
func UploadsPath(repo string) string { return "/v2/" + repo + "/blobs/uploads/" }

// ReferrersPath returns the path and query of the referrers of d; artifactType "" asks for all.
func ReferrersPath(repo string, d digest.Digest, artifactType string) string {
	p := "/v2/" + repo + "/referrers/" + d.String()
	if artifactType != "" {
		p += "?" + url.Values{"artifactType": {artifactType}}.Encode()
	}
	return p
}

// TagsPath returns the path and query of a page of tags: at most n (0: as many as the registry likes), those after last.
func TagsPath(repo string, n int, last string) string {
	p := "/v2/" + repo + "/tags/list"
	q := url.Values{}
	if n > 0 {
		q.Set("n", strconv.Itoa(n))
	}
	if last != "" {
		q.Set("last", last)
	}
	if len(q) > 0 {
		p += "?" + q.Encode()
	}
	return p
}

// CatalogPath returns the path and query of a page of at most n repositories.
func CatalogPath(n int) string { return "/v2/_catalog?n=" + strconv.Itoa(n) }
