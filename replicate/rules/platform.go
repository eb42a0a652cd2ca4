package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Platform is an operating system and architecture, with a variant if that matters.
type Platform struct{ OS, Architecture, Variant string }

func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

var platformText = regexp.MustCompile(`^([a-z0-9_]+)/([a-z0-9_]+)(?:/([a-z0-9.]+))?$`)

// parsePlatform reads OS/ARCHITECTURE[/VARIANT].
func parsePlatform(text string) (Platform, error) {
	m := platformText.FindStringSubmatch(text)
	if m == nil || len(text) > 64 {
		return Platform{}, fmt.Errorf("%.64q is not a platform like linux/amd64 or linux/arm/v7", text)
	}
	return Platform{m[1], m[2], m[3]}.plain(), nil
}

// plain has the names that indexes use, and leaves out the variant that an architecture has without saying so. As
// containerd/platforms normalizes, whose dependencies are too many for that.
func (p Platform) plain() Platform {
	switch p.Architecture {
	case "x86_64":
		p.Architecture = "amd64"
	case "i386":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", cmp.Or(p.Variant, "v7")
	case "armel":
		p.Architecture, p.Variant = "arm", cmp.Or(p.Variant, "v6")
	}
	if p.Variant != "" && p.Variant[0] >= '0' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	switch p.Architecture + "/" + p.Variant {
	case "arm64/v8", "amd64/v1":
		p.Variant = ""
	case "arm/":
		p.Variant = "v7"
	}
	return p
}

// Platforms choose among the images of an index; empty: all.
type Platforms []Platform

// Keep reports whether an image of the platform is wanted. One that does not say its platform is.
func (ps Platforms) Keep(p *ocispec.Platform) bool {
	if len(ps) == 0 || p == nil || p.OS == "" || p.OS == "unknown" {
		return true
	}
	return slices.Contains(ps, Platform{p.OS, p.Architecture, p.Variant}.plain())
}

// Choose returns the children of an index that are wanted, in their order; partial: not all. An attestation is wanted with
// the image that it is about.
func (ps Platforms) Choose(children []ocispec.Descriptor) (chosen []ocispec.Descriptor, partial bool) {
	if len(ps) == 0 {
		return children, false
	}
	dropped := make(map[digest.Digest]bool)
	for _, c := range children {
		if !ps.Keep(c.Platform) {
			dropped[c.Digest] = true
		}
	}
	for _, c := range children {
		if !dropped[c.Digest] && !dropped[Attests(c)] {
			chosen = append(chosen, c)
		}
	}
	return chosen, len(chosen) < len(children)
}

// Attests returns the image that a child of an index is BuildKit's attestation of, or "" (BuildKit, docs/attestations/
// attestation-storage.md).
func Attests(child ocispec.Descriptor) digest.Digest {
	if child.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
		return ""
	}
	return digest.Digest(child.Annotations["vnd.docker.reference.digest"])
}

// String names them in a fixed order, "" when all are wanted.
func (ps Platforms) String() string {
	var names []string
	for _, p := range ps {
		names = append(names, p.String())
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ",")
}
