package registrytest

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// testPutAgain: content that is there already is success, and remains as it was.
func testPutAgain(t *testing.T, s Subject) {
	repo := s.repo("again")
	index := Index(Image(201, 1000), Image(202, 1000))
	Push(t, s.Writer, repo, "v1", index)
	Push(t, s.Writer, repo, "v1", index)
	Push(t, s.Writer, repo, "", index)
	for _, n := range append(index.Children, index) {
		wantOpen(t, s, manifestIn(repo, n), n.Desc, n.Body, registry.Whole)
	}
}

func testPutWrong(t *testing.T, s Subject) {
	repo := s.repo("wrong")
	image := Image(211, 5000)
	Push(t, s.Writer, repo, "v1", image) // so that the repository is there
	body := Bytes(212, 5000)
	right := registry.DescriptorOf("application/octet-stream", body)
	for _, tt := range []struct {
		name string
		desc registry.Descriptor
		body []byte
	}{
		{"other bytes", right, Bytes(213, 5000)},
		{"too few", right, body[:4000]},
		{"too many", right, append(bytes.Clone(body), 1)},
		{"none", right, nil},
		{"size too small", registry.Descriptor{Digest: right.Digest, Size: right.Size - 1}, body},
		{"size too large", registry.Descriptor{Digest: right.Digest, Size: right.Size + 1}, body},
	} {
		if err := s.Writer.PutBlob(t.Context(), repo, tt.desc, bytes.NewReader(tt.body)); err == nil {
			t.Errorf("put blob, %s: no error", tt.name)
		}
	}
	wantAbsent(t, s, registry.Object{Repo: repo, Kind: registry.Blob, Digest: right.Digest})

	desc := image.Desc
	desc.Digest = digest.FromString("another")
	if err := s.Writer.PutManifest(t.Context(), repo, "wrong", desc, image.Body); err == nil {
		t.Errorf("put manifest under another digest: no error")
	}
	_, err := s.Reader.Resolve(t.Context(), repo, "wrong")
	wantClass(t, "resolve what was refused", err, registry.NotFound)

	if err := s.Writer.PutBlob(cancelled(t), repo, right, bytes.NewReader(body)); err == nil {
		t.Errorf("put blob for nobody: no error")
	}
	if err := s.Writer.PutBlob(t.Context(), repo, right, bytes.NewReader(body)); err != nil {
		t.Errorf("put blob after all that: %v", err)
	}
	wantOpen(t, s, registry.Object{Repo: repo, Kind: registry.Blob, Digest: right.Digest}, right, body, registry.Whole)
}

func testOrder(t *testing.T, s Subject) {
	repo := s.repo("order")
	Push(t, s.Writer, repo, "v1", Image(221, 10))
	image := Image(222, 10)
	for _, n := range []Node{image, Index(image)} {
		if err := s.Writer.PutManifest(t.Context(), repo, "early", n.Desc, n.Body); err == nil {
			t.Errorf("put %s before what it refers to: no error", n.Desc.MediaType)
		}
		wantAbsent(t, s, manifestIn(repo, n))
	}
	_, err := s.Reader.Resolve(t.Context(), repo, "early")
	wantClass(t, "resolve what was refused", err, registry.NotFound)
}

func testStrict(t *testing.T, s Subject) {
	repo := s.repo("uncreated")
	image := Image(231, 10)
	err := s.Writer.PutBlob(t.Context(), repo, image.Blobs[0].Desc, bytes.NewReader(image.Blobs[0].Body))
	if registry.ClassOf(err) != registry.NotFound || registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("put blob: %v (code %q), want %s", err, registry.CodeOf(err), registry.CodeNameUnknown)
	}
	err = s.Writer.PutManifest(t.Context(), repo, "v1", image.Desc, image.Body)
	if registry.ClassOf(err) != registry.NotFound || registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("put manifest: %v (code %q), want %s", err, registry.CodeOf(err), registry.CodeNameUnknown)
	}
	Push(t, s.Writer, repo, "v1", image)
}

func testMissing(t *testing.T, s Subject) {
	repo := s.repo("missing")
	here, not := Image(241, 10, 20), Image(242, 30, 40)
	Push(t, s.Writer, repo, "v1", here)
	for _, tt := range []struct {
		name      string
		ask, want []registry.Object
	}{
		{"nothing asked", nil, nil},
		{"all here", here.Objects(repo), nil},
		{"none here", not.Objects(repo), not.Objects(repo)},
		{"some here", append(append(not.Objects(repo)[:2:2], here.Objects(repo)...), not.Objects(repo)[2:]...), not.Objects(repo)},
	} {
		got, err := s.Writer.Missing(t.Context(), repo, tt.ask)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.want, append([]registry.Object(nil), got...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	if _, err := s.Writer.Missing(cancelled(t), repo, not.Objects(repo)); err == nil {
		t.Error("missing for nobody: no error")
	}
}

// testMount: a registry may refuse to mount, but not say that it did when it did not.
func testMount(t *testing.T, s Subject) {
	from, to := s.repo("mount-from"), s.repo("mount-to")
	image := Image(251, 1000)
	Push(t, s.Writer, from, "", image)
	Push(t, s.Writer, to, "", Image(252, 10))
	b := image.Blobs[1]
	ok, err := s.Writer.Mount(t.Context(), blobIn(to, b), from)
	if err != nil {
		t.Fatalf("mount: %v", err)
	}
	if ok {
		wantOpen(t, s, blobIn(to, b), b.Desc, b.Body, registry.Whole)
	} else {
		wantAbsent(t, s, blobIn(to, b))
	}
	absent := registry.Object{Repo: to, Kind: registry.Blob, Digest: digest.FromString("nowhere")}
	if ok, err := s.Writer.Mount(t.Context(), absent, from); ok || err != nil {
		t.Errorf("mount what is not there: %v, %v", ok, err)
	}
}

func testMoveTag(t *testing.T, s Subject) {
	repo := s.repo("move")
	one, two := Image(261, 10), Image(262, 10)
	for i, n := range []Node{one, two, two, one} {
		Push(t, s.Writer, repo, "latest", n)
		if got, err := s.Reader.Resolve(t.Context(), repo, "latest"); err != nil || got.Digest != n.Desc.Digest {
			t.Errorf("move %d: resolve: %s, %v, want %s", i, got.Digest, err, n.Desc.Digest)
		}
	}
	for _, n := range []Node{one, two} { // the tag left, the manifest stays
		wantOpen(t, s, manifestIn(repo, n), n.Desc, n.Body, registry.Whole)
	}
}
