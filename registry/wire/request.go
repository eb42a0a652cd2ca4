// Package wire translates between HTTP and the vocabulary of package registry, in both directions: request paths, byte
// ranges, error bodies and Link headers of the OCI distribution protocol. registry/serve reads requests and writes errors
// with it; registry/remote and registry/ecr build paths and read errors with it.
//
// Everything here reads bytes from outside: names follow the grammar of github.com/distribution/reference, digests are
// those that go-digest verifies, and what is kept of a foreign body is bounded and free of control characters.
//
// Limitations: pull and content discovery only. Catalog and uploads are recognised, not parsed. One range per request.
package wire

import (
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Endpoint is what a path of the distribution API is about.
type Endpoint uint8

const (
	Base      Endpoint = iota // end-1: /v2/
	Blob                      // end-2
	Manifest                  // end-3
	Tags                      // end-8a, end-8b
	Referrers                 // end-12a, end-12b
	Uploads                   // end-4 to end-6: pushing
	Catalog                   // /v2/_catalog
)

func (e Endpoint) String() string {
	return [...]string{"base", "blob", "manifest", "tags", "referrers", "uploads", "catalog"}[e]
}

// MaxPage is the most entries that one page of a listing holds, and the most that Request.N asks for.
const MaxPage = 10_000

// Longest query values, in bytes, that a client may send. A host is at most 253 and a port 6; a media type at most 255
// (RFC 6838, section 4.2, gives 127 to each half).
const (
	maxHost = 260
	maxType = 255
)

// Request is a parsed request path and query. Fields that the endpoint has no use for are zero.
type Request struct {
	Endpoint Endpoint
	// Name is the repository as it stands in the path: of valid grammar, but its first component may be a registry's host.
	Name         string
	NS           string        // upstream registry of containerd's ns parameter, lower case; untrusted: match it, never dial it
	Tag          string        // of a manifest asked for by tag
	Digest       digest.Digest // of a blob, a referrers' subject, or a manifest asked for by digest; it has been validated
	ArtifactType string
	N            int // entries per page; -1 when the client did not say
	Last         string
}

// Parse reads a request's path and query. Errors: an unknown path is NotFound; a malformed name, tag, digest or number is
// Invalid with its code. Together with an error the Request holds what could be read, for logs.
func Parse(u *url.URL) (Request, error) {
	r := Request{N: -1}
	path, ok := strings.CutPrefix(u.Path, "/v2")
	if !ok || path != "" && path[0] != '/' {
		return r, unknownPath()
	}
	path = strings.TrimPrefix(path, "/")
	var ref string
	switch path {
	case "":
	case "_catalog":
		r.Endpoint = Catalog
		return r, nil
	default:
		if r.Endpoint, r.Name, ref, ok = split(path); !ok {
			return r, unknownPath()
		}
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil { // half of it would be another request: without its ns, of another registry
		return r, invalid(CodeUnknown, "query: malformed")
	}
	if r.NS = strings.ToLower(q.Get("ns")); len(r.NS) > maxHost {
		r.NS = ""
		return r, invalid(registry.CodeNameInvalid, "ns: longer than %d bytes", maxHost)
	}
	if r.Endpoint == Base || r.Endpoint == Uploads {
		return r, nil
	}
	if !plain(r.Name) {
		if _, err := reference.WithName(r.Name); err != nil {
			err := invalid(registry.CodeNameInvalid, "repository %q: %v", clean(r.Name, maxMessage), err)
			r.Name = ""
			return r, err
		}
	}
	switch r.Endpoint {
	case Tags:
		return r, r.page(q)
	case Referrers:
		if r.ArtifactType = q.Get("artifactType"); len(r.ArtifactType) > maxType {
			r.ArtifactType = ""
			return r, invalid(CodeUnknown, "artifactType: longer than %d bytes", maxType)
		}
	case Manifest:
		if !strings.Contains(ref, ":") {
			if ref == "" || reference.TagRegexp.FindString(ref) != ref {
				return r, invalid(registry.CodeTagInvalid, "tag %q: %v", clean(ref, maxMessage), reference.ErrTagInvalidFormat)
			}
			r.Tag = ref
			return r, nil
		}
	}
	d := digest.Digest(ref)
	if err := d.Validate(); err != nil {
		return r, invalid(registry.CodeDigestInvalid, "digest %q: %v", clean(ref, maxMessage), err)
	}
	r.Digest = d
	return r, nil
}

// split cuts a path behind /v2/ from the right, for a repository's name may itself contain "manifests" or "blobs".
func split(path string) (e Endpoint, name, ref string, ok bool) {
	head, ref, _ := cutLast(path)
	name, keyword, ok := cutLast(head)
	if !ok || name == "" {
		return 0, "", "", false
	}
	switch keyword {
	case "manifests":
		return Manifest, name, ref, true
	case "blobs":
		if ref == "uploads" {
			return Uploads, name, "", true
		}
		return Blob, name, ref, true
	case "referrers":
		return Referrers, name, ref, true
	case "tags":
		return Tags, name, "", ref == "list"
	case "uploads":
		name, ok = strings.CutSuffix(name, "/blobs")
		return Uploads, name, "", ok
	}
	return 0, "", "", false
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+1:], true
}

// page reads n and last. Larger pages than MaxPage are cut to it, as the specification allows ("Listing Tags": fewer than n
// entries may be returned when a Link header is).
func (r *Request) page(q url.Values) error {
	r.Last = q.Get("last")
	s := q.Get("n")
	if s == "" {
		return nil
	}
	n, overflow, ok := number(s)
	if !ok {
		return invalid(CodePaginationNumberInvalid, "n %q: not a number", clean(s, 32))
	}
	if r.N = MaxPage; !overflow && n < MaxPage {
		r.N = int(n)
	}
	return nil
}

// number reads a run of decimal digits and nothing else: no sign, no space. What is too large is math.MaxInt64 with
// overflow set.
func number(s string) (n int64, overflow, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false, false
		}
	}
	if s == "" {
		return 0, false, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil { // only its size is left to be wrong
		return math.MaxInt64, true, true
	}
	return n, false, true
}

// SplitHost cuts the name's first component from the rest, which is what a path prefix /v2/HOST/<repo>/ looks like; the
// host is in lower case. Whether it is a host is for the caller to know. A name of one component has host "".
func (r Request) SplitHost() (host, repo string) {
	host, repo, ok := strings.Cut(r.Name, "/")
	if !ok {
		return "", r.Name
	}
	return strings.ToLower(host), repo
}

// CheckRepo returns an Invalid error with NAME_INVALID unless repo is a repository name without a registry host: lower case,
// at most 255 bytes.
func CheckRepo(repo string) error {
	if plain(repo) {
		return nil
	}
	// Behind a host whatever matches is the repository; a name alone might be taken for host and path.
	named, err := reference.WithName("host/" + repo)
	if err == nil && reference.Path(named) != repo {
		err = reference.ErrReferenceInvalidFormat
	}
	if err != nil {
		return invalid(registry.CodeNameInvalid, "repository %q: %v", clean(repo, maxMessage), err)
	}
	return nil
}

// plain reports whether name is a repository's of the simplest form, runs of lower-case letters and digits with one of ./_-
// between them. Almost all are, and the grammar, whose matching takes a microsecond, has nothing to add.
func plain(name string) bool {
	inRun := false
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			inRun = true
		case inRun && (c == '.' || c == '_' || c == '-' || c == '/'):
			inRun = false
		default:
			return false
		}
	}
	return inRun && len(name) <= 200
}

func unknownPath() error {
	e := registry.Errorf(registry.NotFound, "no such path")
	e.Code = CodeUnknown
	return e
}

func invalid(code, format string, args ...any) error {
	e := registry.Errorf(registry.Invalid, format, args...)
	e.Code = code
	return e
}
