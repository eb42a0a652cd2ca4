package registrytest

import (
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func testStat(t *testing.T, s Subject) {
	repo := s.repo("stat")
	image := Image(11, 1000, 2000)
	index := Index(image, Image(12, 10))
	Push(t, s.Writer, repo, "v1", index)
	got, err := s.Reader.Resolve(t.Context(), repo, "v1")
	if err != nil {
		t.Fatalf("resolve: %v", err)
	}
	if diff := cmp.Diff(index.Desc, core(manifestIn(repo, index), got)); diff != "" {
		t.Errorf("resolve (-want +got):\n%s", diff)
	}
	stat := func(o registry.Object, want registry.Descriptor) {
		got, err := s.Reader.Stat(t.Context(), o)
		if err != nil {
			t.Errorf("stat %v: %v", o, err)
			return
		}
		if diff := cmp.Diff(core(o, want), core(o, got)); diff != "" {
			t.Errorf("stat %v (-want +got):\n%s", o, diff)
		}
	}
	stat(manifestIn(repo, index), index.Desc)
	stat(manifestIn(repo, image), image.Desc)
	for _, b := range image.Blobs {
		stat(blobIn(repo, b), b.Desc)
	}
}

func testManifests(t *testing.T, s Subject) {
	repo := s.repo("manifests")
	image := Image(21, 100)
	index := Index(image)
	Push(t, s.Writer, repo, "v1", index)
	for _, n := range []Node{index, image} {
		o := manifestIn(repo, n)
		wantOpen(t, s, o, n.Desc, n.Body, registry.Whole)
		wantOpen(t, s, o, n.Desc, n.Body, registry.Range{Offset: 5, Length: 10})
		_, err := s.Reader.Open(t.Context(), o, registry.Range{Offset: n.Desc.Size, Length: -1})
		wantClass(t, "open at the end", err, registry.Invalid)
	}
}

func testBlobs(t *testing.T, s Subject) {
	repo := s.repo("blobs")
	image := Image(31, 1, 100, 64<<10, 1<<20+17)
	Push(t, s.Writer, repo, "", image)
	for _, b := range image.Blobs {
		wantOpen(t, s, blobIn(repo, b), b.Desc, b.Body, registry.Whole)
		wantOpen(t, s, blobIn(repo, b), b.Desc, b.Body, registry.Whole) // and once more: what is cached now reads the same
	}
}

func testRanges(t *testing.T, s Subject) {
	repo := s.repo("ranges")
	const size = 200_003
	image := Image(41, size)
	Push(t, s.Writer, repo, "", image)
	b := image.Blobs[1]
	o := blobIn(repo, b)
	for _, r := range []registry.Range{
		{Offset: 0, Length: 1},               // the first byte
		{Offset: size - 1, Length: 1},        // the last byte
		{Offset: 70_000, Length: 1000},       // in the middle
		{Offset: 0, Length: size},            // the whole, in numbers
		{Offset: 0, Length: size + 1},        // past the end: clamped
		{Offset: size - 10, Length: 1 << 40}, // far past the end
		{Offset: size - 70_000, Length: -1},  // open
		{Offset: 1, Length: -1},              // all but the first
		{Offset: 0, Length: 0},               // nothing
		{Offset: 100, Length: 0},             // nothing, further on
	} {
		wantOpen(t, s, o, b.Desc, b.Body, r)
	}
	for _, r := range []registry.Range{{Offset: size, Length: -1}, {Offset: size, Length: 1}, {Offset: size + 1, Length: 5}, {Offset: -1, Length: 2}} {
		c, err := s.Reader.Open(t.Context(), o, r)
		if err == nil {
			c.Close()
		}
		wantClass(t, "open outside", err, registry.Invalid)
	}
	c, err := s.Reader.Open(t.Context(), o, registry.Range{Offset: 0, Length: 10})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer c.Close()
	s.Reader = c.From // the Reader that answered gives the rest
	wantOpen(t, s, o, b.Desc, b.Body, registry.Range{Offset: 10, Length: -1})
}

func testEmptyBlob(t *testing.T, s Subject) {
	repo := s.repo("empty")
	image := Image(51, 0)
	Push(t, s.Writer, repo, "", image)
	wantOpen(t, s, blobIn(repo, image.Blobs[1]), image.Blobs[1].Desc, nil, registry.Whole)
}

func testAbsent(t *testing.T, s Subject) {
	repo := s.repo("absent")
	Push(t, s.Writer, repo, "v1", Image(61, 10))
	if _, err := s.Reader.Resolve(t.Context(), repo, "v2"); registry.ClassOf(err) != registry.NotFound {
		t.Errorf("resolve absent tag: %v", err)
	}
	nowhere := s.repo("nowhere")
	_, err := s.Reader.Resolve(t.Context(), nowhere, "v1")
	wantClass(t, "resolve in an absent repository", err, registry.NotFound)
	d := digest.FromString("absent")
	for _, name := range []string{repo, nowhere} {
		for _, kind := range []registry.Kind{registry.Blob, registry.Manifest} {
			wantAbsent(t, s, registry.Object{Repo: name, Kind: kind, Digest: d})
		}
	}
}

func wantAbsent(t *testing.T, s Subject, o registry.Object) {
	t.Helper()
	_, err := s.Reader.Stat(t.Context(), o)
	wantClass(t, "stat "+o.String(), err, registry.NotFound)
	for _, r := range []registry.Range{registry.Whole, {Offset: 3, Length: 4}} {
		c, err := s.Reader.Open(t.Context(), o, r)
		if err == nil {
			c.Close()
		}
		wantClass(t, "open "+o.String(), err, registry.NotFound)
	}
}

// testKinds: a manifest is not found among the blobs, nor a blob among the manifests.
func testKinds(t *testing.T, s Subject) {
	repo := s.repo("kinds")
	image := Image(71, 10)
	Push(t, s.Writer, repo, "v1", image)
	m := manifestIn(repo, image)
	wantOpen(t, s, m, image.Desc, image.Body, registry.Whole) // having read it does not make it a blob
	m.Kind = registry.Blob
	wantAbsent(t, s, m)
	b := blobIn(repo, image.Blobs[0])
	wantOpen(t, s, b, image.Blobs[0].Desc, image.Blobs[0].Body, registry.Whole)
	b.Kind = registry.Manifest
	wantAbsent(t, s, b)
}

func testClosedEarly(t *testing.T, s Subject) {
	repo := s.repo("early")
	image := Image(81, 1<<20)
	Push(t, s.Writer, repo, "", image)
	b := image.Blobs[1]
	c, err := s.Reader.Open(t.Context(), blobIn(repo, b), registry.Whole)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
		t.Errorf("read: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close early: %v", err)
	}
	wantOpen(t, s, blobIn(repo, b), b.Desc, b.Body, registry.Whole)
}

// testCancelled: a caller who is gone gets an error that does not say anything about the content.
func testCancelled(t *testing.T, s Subject) {
	repo := s.repo("cancelled")
	image := Image(91, 100_000)
	Push(t, s.Writer, repo, "v1", image)
	ctx := cancelled(t)
	_, err := s.Reader.Resolve(ctx, repo, "v1")
	wantClass(t, "resolve", err, registry.Unavailable)
	for _, o := range image.Objects(repo) {
		_, err := s.Reader.Stat(ctx, o)
		wantClass(t, "stat "+o.String(), err, registry.Unavailable)
		c, err := s.Reader.Open(ctx, o, registry.Whole)
		if err == nil {
			_, err = io.Copy(io.Discard, c)
			c.Close()
		}
		wantClass(t, "open and read "+o.String(), err, registry.Unavailable)
	}
	wantOpen(t, s, manifestIn(repo, image), image.Desc, image.Body, registry.Whole) // others are not harmed
}

func testConcurrent(t *testing.T, s Subject) {
	repo := s.repo("concurrent")
	image := Image(101, 300_000, 1<<20)
	Push(t, s.Writer, repo, "v1", image)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for j := range image.Blobs {
				b := image.Blobs[(i+j)%len(image.Blobs)]
				wantOpen(t, s, blobIn(repo, b), b.Desc, b.Body, registry.Whole)
				wantOpen(t, s, blobIn(repo, b), b.Desc, b.Body, registry.Range{Offset: b.Desc.Size / int64(i+2), Length: int64(i * 10_000)})
			}
			wantOpen(t, s, manifestIn(repo, image), image.Desc, image.Body, registry.Whole)
			if _, err := s.Reader.Resolve(t.Context(), repo, "v1"); err != nil {
				t.Errorf("resolve: %v", err)
			}
		})
	}
	wg.Wait()
}

func testTags(t *testing.T, s Subject) {
	repo := s.repo("tags")
	image := Image(111, 10)
	want := map[string]bool{"a": true, "b-1": true, "v1.2.3": true, "latest": true, "_x": true}
	for tag := range want {
		Push(t, s.Writer, repo, tag, image)
	}
	Push(t, s.Writer, repo, "", Image(112, 10)) // untagged
	got := make(map[string]bool)
	for tag, err := range s.Lister.Tags(t.Context(), repo) {
		if err != nil {
			t.Fatalf("tags: %v", err)
		}
		if got[tag] {
			t.Errorf("tag %s twice", tag)
		}
		got[tag] = true
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	n := 0
	for range s.Lister.Tags(t.Context(), repo) {
		n++
		break
	}
	if n != 1 {
		t.Errorf("left after the first tag: saw %d", n)
	}
	var last error
	for _, err := range s.Lister.Tags(t.Context(), s.repo("nowhere")) {
		last = err
	}
	wantClass(t, "tags of an absent repository", last, registry.NotFound)
	for _, err := range s.Lister.Tags(cancelled(t), repo) {
		last = err
	}
	wantClass(t, "tags for nobody", last, registry.Unavailable)
}

func testReferrers(t *testing.T, s Subject) {
	repo := s.repo("referrers")
	image := Image(121, 10)
	sbom, sig := Referrer(image.Desc, "application/vnd.test.sbom", []byte("sbom")), Referrer(image.Desc, "application/vnd.test.sig", []byte("sig"))
	Push(t, s.Writer, repo, "v1", image)
	Push(t, s.Writer, repo, "", sbom)
	Push(t, s.Writer, repo, "", sig)
	for _, tt := range []struct {
		name, filter string
		of           Node
		want         []Node
	}{
		{"all", "", image, []Node{sbom, sig}},
		{"one type", "application/vnd.test.sig", image, []Node{sig}},
		{"no such type", "application/vnd.test.none", image, nil},
		{"of what has none", "", sbom, nil},
	} {
		want, got := make(map[digest.Digest]registry.Descriptor), make(map[digest.Digest]registry.Descriptor)
		for _, n := range tt.want {
			d := n.Desc
			d.ArtifactType, d.Annotations = "application/vnd.test.sbom", map[string]string{"org.example.test": "referrer"}
			if n.Desc.Digest == sig.Desc.Digest {
				d.ArtifactType = "application/vnd.test.sig"
			}
			want[d.Digest] = d
		}
		for d, err := range s.Lister.Referrers(t.Context(), repo, tt.of.Desc.Digest, tt.filter) {
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			got[d.Digest] = d
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	// What has no subject there has no referrers: an empty answer, or an absent repository.
	for d, err := range s.Lister.Referrers(t.Context(), s.repo("nowhere"), image.Desc.Digest, "") {
		if !errors.Is(err, registry.NotFound) {
			t.Errorf("referrers in an absent repository: %v, %v", d, err)
		}
	}
}
