package rules

import (
	"strings"

	"github.com/opencontainers/go-digest"
)

// companionSuffixes end the tags that are about an image: those of cosign (sigstore, "Signature Specification", storage) and
// none, for the referrers tag of registries without the referrers API (OCI distribution specification, "Referrers Tag Schema").
var companionSuffixes = []string{"", ".sig", ".att", ".sbom"}

// Companions returns the tags under which something about the manifest d may be.
func Companions(d digest.Digest) (tags []string) {
	for _, suffix := range companionSuffixes {
		tags = append(tags, d.Algorithm().String()+"-"+d.Encoded()+suffix)
	}
	return tags
}

// Subject returns the manifest that a tag is about, if it is such a tag.
func Subject(tag string) (d digest.Digest, ok bool) {
	algorithm, rest, _ := strings.Cut(tag, "-")
	encoded, suffix, _ := strings.Cut(rest, ".")
	d = digest.Digest(algorithm + ":" + encoded)
	if d.Validate() != nil {
		return "", false
	}
	for _, s := range companionSuffixes {
		if s == "" && rest == encoded || s == "."+suffix {
			return d, true
		}
	}
	return "", false
}

// Follows reports whether the image is wanted only as something about another: no rule wants it by its own tag, but one wants
// other images of its repository. tag is "" for an image without one, or one that Subject knows.
func (p *Part) Follows(repo, tag string) bool {
	_, about := Subject(tag)
	return (tag == "" || about) && p.MatchRepo(repo) && !p.Match(repo, tag)
}
