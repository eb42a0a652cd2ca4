package registrytest

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Subject is what Run tests: one registry seen through the interfaces that it has.
type Subject struct {
	Reader registry.Reader
	// Writer puts content where Reader finds it: for a store or a mirror, into its upstream. It is tested too, unless ReadOnly.
	Writer   registry.Writer
	ReadOnly bool
	Lister   registry.Lister // nil: not tested
	Repo     string          // first part of the names of the repositories that the suite makes; "" is "suite"

	StrictRepos bool // writing to a repository that was not created is NAME_UNKNOWN
	Unordered   bool // the registry takes a manifest before what it refers to
	EmptyBlobs  bool // the registry takes a blob of no bytes
	MixedKinds  bool // the registry errs when a blob is asked for as a manifest, or the other way round
	NoReferrers bool // the registry does not know which manifests refer to a subject
}

func (s Subject) repo(name string) string {
	if s.Repo == "" {
		return "suite/" + name
	}
	return s.Repo + "/" + name
}

// Run tests that what open returns keeps the contracts of package registry. open is called once for every test and is given
// that test's own T, for its cleanups; what it returns may be empty or filled by others, outside of Subject.Repo.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	t.Helper()
	tests := []struct {
		name string
		run  func(*testing.T, Subject)
		when func(Subject) bool
	}{
		{"resolve and stat", testStat, nil},
		{"open manifests", testManifests, nil},
		{"open blobs", testBlobs, nil},
		{"ranges", testRanges, nil},
		{"empty blob", testEmptyBlob, func(s Subject) bool { return s.EmptyBlobs }},
		{"absent", testAbsent, nil},
		{"kinds are apart", testKinds, func(s Subject) bool { return !s.MixedKinds }},
		{"closed early", testClosedEarly, nil},
		{"cancelled", testCancelled, nil},
		{"concurrent readers", testConcurrent, nil},
		{"put again", testPutAgain, writable},
		{"put wrong bytes", testPutWrong, writable},
		{"put manifest first", testOrder, func(s Subject) bool { return writable(s) && !s.Unordered }},
		{"put to no repository", testStrict, func(s Subject) bool { return writable(s) && s.StrictRepos }},
		{"missing", testMissing, writable},
		{"mount", testMount, writable},
		{"move a tag", testMoveTag, writable},
		{"tags", testTags, func(s Subject) bool { return s.Lister != nil }},
		{"referrers", testReferrers, func(s Subject) bool { return s.Lister != nil && !s.NoReferrers }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if s := open(t); tt.when == nil || tt.when(s) {
				tt.run(t, s)
			}
		})
	}
}

func writable(s Subject) bool { return !s.ReadOnly }

func manifestIn(repo string, n Node) registry.Object {
	return registry.Object{Repo: repo, Kind: registry.Manifest, Digest: n.Desc.Digest}
}

func blobIn(repo string, b Blob) registry.Object {
	return registry.Object{Repo: repo, Kind: registry.Blob, Digest: b.Desc.Digest}
}

// core is the part of a descriptor that every Reader sets. The media type of a blob is whatever the registry says.
func core(o registry.Object, d registry.Descriptor) registry.Descriptor {
	if o.Kind == registry.Blob {
		d.MediaType = ""
	}
	return registry.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

func wantClass(t *testing.T, what string, err error, want registry.Class) {
	t.Helper()
	if err == nil || registry.ClassOf(err) != want {
		t.Errorf("%s: error %v, want one of class %q", what, err, want)
	}
}

// wantOpen checks that r of o, whose bytes are body, reads exactly.
func wantOpen(t *testing.T, s Subject, o registry.Object, desc registry.Descriptor, body []byte, r registry.Range) {
	t.Helper()
	clip, ok := r.Clip(desc.Size)
	if !ok {
		t.Fatalf("%v of %d bytes is not a range to read", r, desc.Size)
	}
	c, err := s.Reader.Open(t.Context(), o, r)
	if err != nil {
		t.Errorf("open %v %v: %v", o, r, err)
		return
	}
	defer c.Close()
	if diff := cmp.Diff(core(o, desc), core(o, c.Descriptor)); diff != "" {
		t.Errorf("open %v %v: descriptor (-want +got):\n%s", o, r, diff)
	}
	if c.Range != clip {
		t.Errorf("open %v %v: content holds %v, want %v", o, r, c.Range, clip)
	}
	if c.From == nil {
		t.Errorf("open %v %v: From is nil", o, r)
	}
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read %v %v: %v after %d bytes", o, r, err, len(got))
	}
	if want := body[clip.Offset : clip.Offset+clip.Length]; !bytes.Equal(got, want) {
		t.Errorf("read %v %v: %d bytes, want %d; equal up to %d", o, r, len(got), len(want), common(got, want))
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %v %v past the end: %d, %v", o, r, n, err)
	}
}

func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// cancelled is a context that has ended.
func cancelled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
