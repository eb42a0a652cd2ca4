// Package registry is the vocabulary of ecr-mirror: what a registry holds, how it is read and written, and how it fails.
//
// A Reader is a registry seen from a puller. Every place an image can be is one: a memory registry (registry/mem), any OCI
// registry (registry/remote), an ECR registry (registry/ecr), the local store in front of another Reader
// (storage.Store.Over) and the mirror itself (registry/mirror). Because they all meet here, they compose: Tiers asks one
// after another, Rename maps repository names, Named gives a place its name in errors and logs.
//
// Limitations: digests are sha256 or sha512 (what go-digest verifies); manifests are at most MaxManifestSize bytes.
package registry

import (
	"context"
	"io"
	"iter"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifestSize is the largest manifest in bytes that anything here reads or stores: 4 MiB, the floor that the OCI
// distribution specification asks of registries ("Pushing Manifests") and the most that PutImage accepts.
const MaxManifestSize = 4 << 20

// Descriptor names content: its media type, digest and size in bytes. Readers set these three; referrers also carry
// ArtifactType and Annotations.
type Descriptor = ocispec.Descriptor

// Kind tells manifests (and indexes) from blobs: registries keep them under different paths and permissions.
type Kind uint8

const (
	Blob     Kind = iota // a layer, a config, any opaque content
	Manifest             // an image manifest or an index
)

func (k Kind) String() string {
	if k == Manifest {
		return "manifest"
	}
	return "blob"
}

// Object is one immutable piece of content in one repository.
type Object struct {
	Repo   string
	Kind   Kind
	Digest digest.Digest
}

func (o Object) String() string { return o.Kind.String() + " " + o.Repo + "@" + o.Digest.String() }

// Range is a run of bytes of an object. Length < 0 means to the end. The zero value is the empty range at 0: use Whole.
type Range struct{ Offset, Length int64 }

// Whole is the range of a whole object.
var Whole = Range{0, -1}

// Clip returns r within an object of size bytes, with its true length. ok is false when r starts at or past the end of a
// non-empty object, or is negative.
func (r Range) Clip(size int64) (c Range, ok bool) {
	if r.Offset < 0 || r.Offset > size || (r.Offset == size && size > 0) {
		return Range{}, false
	}
	if rest := size - r.Offset; r.Length < 0 || r.Length > rest {
		r.Length = rest
	}
	return r, true
}

// Reader is a registry as a puller sees it. Methods are safe for concurrent use. Errors carry a Class; an error of class
// NotFound means that the registry said so, never that it could not be asked.
type Reader interface {
	// Resolve returns the descriptor that a tag names now.
	Resolve(ctx context.Context, repo, tag string) (Descriptor, error)
	// Stat returns an object's descriptor without its bytes.
	Stat(ctx context.Context, o Object) (Descriptor, error)
	// Open returns the bytes of o in r, clipped to the object; r.Offset at or past the end of a non-empty object is Invalid.
	// ctx bounds the whole life of the Content, not just the call. The caller closes it.
	Open(ctx context.Context, o Object, r Range) (*Content, error)
}

// Content is an open object. Reading it yields exactly Range.Length bytes and then io.EOF; content that ends early yields
// an error, never a silent io.EOF. Bytes from remote and ecr are not verified; those from storage are.
type Content struct {
	Descriptor Descriptor // of the whole object; Size is always known
	Range      Range      // what the body holds, clipped: Length is its true length
	From       Reader     // the Reader that answered: further ranges of the object may go straight to it
	// Host is the network host that sends the bytes, "" where there is none: how many reads run at once is bounded per host.
	Host string
	// Sequential is set when the upstream ignored a Range: the bytes before it were read and dropped, so asking for
	// further ranges in parallel would read them again.
	Sequential bool
	io.ReadCloser
}

// Spanner is implemented by a Content's ReadCloser when the bytes are in a file, growing or complete.
type Spanner interface {
	// Span waits until at least one byte at the body's position may be given out and returns the file, which is
	// positioned there and is the body's own descriptor, and how many bytes (at most max) are ready. Reading them from
	// the file moves the body on. The caller does not close the file and reads all n bytes before it calls again.
	// The end is io.EOF. ctx bounds the wait.
	Span(ctx context.Context, max int64) (f *os.File, n int64, err error)
}

// Held is implemented by a Content's ReadCloser when all of the object is in memory and has been verified.
type Held interface {
	// Bytes returns the whole object, which nobody may change. It may be used after Close.
	Bytes() []byte
}

// Lister lists what a repository holds. An iterator that fails yields its error last.
type Lister interface {
	// Tags yields the repository's tags in no particular order.
	Tags(ctx context.Context, repo string) iter.Seq2[string, error]
	// Referrers yields manifests whose subject is d; artifactType "" means all. A registry without referrers yields none.
	Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[Descriptor, error]
}

// Image is one manifest in a catalog. Tags may be empty.
type Image struct {
	Descriptor Descriptor
	Tags       []string
	PushedAt   time.Time // zero where the registry does not say
	Bytes      int64     // of its blobs; 0 where the registry does not say
	// Subject is the manifest that it is about; "" for none, and where the registry does not say.
	Subject digest.Digest
}

// Catalog lists a registry as a whole: what a sweep compares.
type Catalog interface {
	Repositories(ctx context.Context) iter.Seq2[string, error]
	// Images yields the images of repo pushed at or after since, and those of which the registry does not say when; the zero
	// time means all. A tag may come with several images, or an image several times, while the repository is being pushed to.
	Images(ctx context.Context, repo string, since time.Time) iter.Seq2[Image, error]
}

// Describer is a registry that tells when an image was pushed to it.
type Describer interface {
	// Describe returns of one image what a Catalog says of it.
	Describe(ctx context.Context, repo string, d digest.Digest) (Image, error)
}

// Fixer is a registry that knows which tags may not be moved.
type Fixer interface {
	// Fixed returns the rule for the tags of repo.
	Fixed(ctx context.Context, repo string) (fixed func(tag string) bool, err error)
}

// Keeper is a registry whose images may be there without being readable (archived), or go without anybody's deleting them.
type Keeper interface {
	// Keeps reports whether the registry has the manifest d, readable or not. A repository that it does not have is NotFound:
	// that says nothing of d.
	Keeps(ctx context.Context, repo string, d digest.Digest) (bool, error)
	// Expires reports whether the registry may by itself remove images from repo.
	Expires(ctx context.Context, repo string) (bool, error)
}

// Writer is a registry as a pusher sees it. Puts are idempotent: content that is already there is success. What a method
// returned nil for is visible to a Reader of the same registry.
type Writer interface {
	// Missing returns those of objects (one repository) that the registry lacks, in their order.
	Missing(ctx context.Context, repo string, objects []Object) ([]Object, error)
	// Mount makes a blob of repository from appear in o.Repo without sending it; false when the registry would not.
	Mount(ctx context.Context, o Object, from string) (bool, error)
	// PutBlob uploads exactly d.Size bytes from body and has the registry verify d.Digest. It does not close body.
	// A repository that does not exist is NotFound with code NAME_UNKNOWN.
	PutBlob(ctx context.Context, repo string, d Descriptor, body io.Reader) error
	// PutManifest stores body byte-exact under its digest d.Digest, and under tag unless that is empty. An immutable tag that
	// names another digest is Conflict; one that already names d.Digest is success.
	PutManifest(ctx context.Context, repo, tag string, d Descriptor, body []byte) error
}

// Deleter removes a manifest and all its tags; what is absent already is success.
type Deleter interface {
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error
}

// Provisioner creates repositories; one that exists is success.
type Provisioner interface {
	CreateRepository(ctx context.Context, repo string) error
}

// Locator gives out presigned URLs of blobs. It caches them and renews them well before expires.
type Locator interface {
	Locate(ctx context.Context, o Object) (url string, expires time.Time, err error)
}

// Op is what happened to an image.
type Op uint8

const (
	Push Op = iota
	Delete
)

func (o Op) String() string {
	if o == Delete {
		return "delete"
	}
	return "push"
}

// Change is what an event says of a registry. It is a hint: events are lost, repeated, reordered and forged.
type Change struct {
	Registry string // host
	Repo     string
	Tag      string // "" when the image was pushed by digest alone
	Digest   digest.Digest
	Op       Op
	Explicit bool      // of a Delete: somebody asked for it; else it may have been a lifecycle policy
	At       time.Time // when the registry says it happened
}
