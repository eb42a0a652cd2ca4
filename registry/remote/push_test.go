package remote_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// Locations and links that leave the registry are not followed.
func TestStaysAtTheRegistry(t *testing.T) {
	image := registrytest.Image(1, 10)
	b := image.Blobs[1]
	for _, scheme := range []string{"http", "https", ""} {
		f, other := newFake(t), newFake(t)
		to := scheme + "://" + host(other.srv.URL) + "/v2/app/blobs/uploads/x"
		if scheme == "" {
			to = "//" + host(other.srv.URL) + "/v2/app/blobs/uploads/x"
		}
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", to)
			w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, to))
			if r.Method == http.MethodPost {
				w.WriteHeader(http.StatusAccepted)
			} else {
				fmt.Fprint(w, `{"tags":["a"],"schemaVersion":2,"manifests":[]}`)
			}
			return true
		}
		r := f.open(t, remote.Options{Username: user, Password: password})
		if err := r.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); !errors.Is(err, registry.Invalid) {
			t.Errorf("location %s: %v", to, err)
		}
		if ok, err := r.Mount(t.Context(), image.Objects("app")[1], "from"); ok || err != nil {
			t.Errorf("mount, location %s: %v, %v", to, ok, err)
		}
		var err1, err2 error
		for _, err := range r.Tags(t.Context(), "app") {
			err1 = err
		}
		for _, err := range r.Referrers(t.Context(), "app", image.Desc.Digest, "") {
			err2 = err
		}
		if !errors.Is(err1, registry.Invalid) || !errors.Is(err2, registry.Invalid) {
			t.Errorf("link %s: tags %v, referrers %v", to, err1, err2)
		}
		if seen := other.seen(); len(seen) != 0 {
			t.Errorf("%s was followed: %v", to, seen)
		}
	}
}

func TestPutBlobFaults(t *testing.T) {
	image := registrytest.Image(1, 300_000)
	b := image.Blobs[1]
	broken := registry.Errorf(registry.Throttled, "source: slow down")
	put := func(status int, header ...string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodPut {
				return false
			}
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			return true
		}
	}
	for _, tt := range []struct {
		name   string
		body   io.Reader
		answer func(http.ResponseWriter, *http.Request) bool
		want   registry.Class
	}{
		{"source breaks", io.MultiReader(bytes.NewReader(b.Body[:100_000]), iotest.ErrReader(broken)), nil, registry.Throttled},
		{"source breaks at once", iotest.ErrReader(broken), nil, registry.Throttled},
		{"source breaks behind the last byte", io.MultiReader(bytes.NewReader(b.Body), iotest.ErrReader(broken)), nil, registry.Throttled},
		{"wrong bytes", bytes.NewReader(image.Blobs[0].Body), nil, registry.Corrupt},
		{"registry refuses early", bytes.NewReader(b.Body), put(503), registry.Unavailable},
		{"registry throttles", bytes.NewReader(b.Body), put(429), registry.Throttled},
		{"session is gone", bytes.NewReader(b.Body), put(404), registry.NotFound},
		{"an answer of no meaning", bytes.NewReader(b.Body), put(202), registry.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // a server waits half a second before it closes a connection that it answered early
			f := newFake(t)
			f.answer = tt.answer
			r := f.open(t, remote.Options{})
			err := r.PutBlob(t.Context(), "app", b.Desc, tt.body)
			if err == nil || registry.ClassOf(err) != tt.want {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if _, err := f.Stat(t.Context(), image.Objects("app")[1]); !errors.Is(err, registry.NotFound) {
				t.Errorf("the registry has it: %v", err)
			}
			if seen := f.seen(); seen[len(seen)-1] != "DELETE /v2/app/blobs/uploads/session?state=s" {
				t.Errorf("the upload was not cancelled: %v", seen)
			}
			f.answer = nil
			if err := r.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
				t.Errorf("again: %v", err)
			}
		})
	}
}

// After PutBlob has returned nobody reads the caller's body, whatever became of the request.
func TestPutBlobLeavesTheBody(t *testing.T) {
	b := registrytest.Image(1, 8<<20).Blobs[1]
	f := newFake(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool { // answers while the body is still being sent
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	}
	r := f.open(t, remote.Options{})
	for range 20 {
		body := bytes.NewReader(b.Body)
		if err := r.PutBlob(t.Context(), "app", b.Desc, body); err == nil {
			t.Error("no error")
		}
		body.Reset(nil) // the race detector objects if the body is still read
	}
}

func TestPutManifestAnswers(t *testing.T) {
	image, other := registrytest.Image(1, 10), registrytest.Image(2, 10)
	immutable := `{"errors":[{"code":"TAG_INVALID","message":"tag is immutable"}]}`
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		now    registrytest.Node // what the tag names
		want   error
	}{
		{"immutable, another", func(w http.ResponseWriter) { http.Error(w, immutable, 400) }, other, registry.Conflict},
		{"immutable, the same", func(w http.ResponseWriter) { http.Error(w, immutable, 400) }, image, nil},
		{"409", func(w http.ResponseWriter) { w.WriteHeader(409) }, other, registry.Conflict},
		{"no such repository", func(w http.ResponseWriter) { w.WriteHeader(404) }, other, registry.NotFound},
		{"stored as something else", func(w http.ResponseWriter) {
			w.Header().Set("Docker-Content-Digest", other.Desc.Digest.String())
			w.WriteHeader(201)
		}, other, registry.Corrupt},
		{"stored without a digest", func(w http.ResponseWriter) { w.WriteHeader(201) }, other, nil},
		{"blob unknown", func(w http.ResponseWriter) { http.Error(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}`, 404) }, other, registry.Invalid},
	} {
		f := newFake(t)
		registrytest.Push(t, f.Registry, "app", "v1", tt.now)
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPut {
				tt.answer(w)
				return true
			}
			return false
		}
		err := f.open(t, remote.Options{}).PutManifest(t.Context(), "app", "v1", image.Desc, image.Body)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if errors.Is(tt.want, registry.NotFound) && registry.CodeOf(err) != registry.CodeNameUnknown {
			t.Errorf("%s: code %q", tt.name, registry.CodeOf(err))
		}
	}
	f := newFake(t)
	r := f.open(t, remote.Options{})
	if err := r.PutManifest(t.Context(), "app", "v1", image.Desc, other.Body); !errors.Is(err, registry.Corrupt) || len(f.seen()) != 0 {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := r.PutManifest(t.Context(), "app", "v1", image.Desc, make([]byte, registry.MaxManifestSize+1)); !errors.Is(err, registry.Invalid) || len(f.seen()) != 0 {
		t.Errorf("huge: %v", err)
	}
}

// Without the referrers API, referrers are read from the tag that clients maintain.
func TestReferrersTag(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 10)
	sbom := registrytest.Referrer(image.Desc, "application/x.sbom", []byte("sbom"))
	registrytest.Push(t, f.Registry, "app", "v1", image)
	registrytest.Push(t, f.Registry, "app", "", sbom)
	d := sbom.Desc
	d.ArtifactType = "application/x.sbom"
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []registry.Descriptor{d}}
	body := encode(t, ix)
	tag := strings.Replace(image.Desc.Digest.String(), ":", "-", 1)
	if err := f.PutManifest(t.Context(), "app", tag, registry.DescriptorOf(ix.MediaType, body), body); err != nil {
		t.Fatal(err)
	}
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.NotFound(w, r)
			return true
		}
		return false
	}
	r := f.open(t, remote.Options{})
	list := func(of registry.Descriptor, filter string) []registry.Descriptor {
		var got []registry.Descriptor
		for d, err := range r.Referrers(t.Context(), "app", of.Digest, filter) {
			if err != nil {
				t.Error(err)
			}
			got = append(got, d)
		}
		return got
	}
	for _, filter := range []string{"", "application/x.sbom"} {
		if diff := cmp.Diff([]registry.Descriptor{d}, list(image.Desc, filter)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", filter, diff)
		}
	}
	if got := append(list(image.Desc, "application/x.none"), list(sbom.Desc, "")...); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

func TestTagsThatNeverEnd(t *testing.T) {
	f := newFake(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Link", `</v2/app/tags/list?last=a>; rel="next"`)
		fmt.Fprint(w, `{"tags":["a"]}`)
		return true
	}
	var last error
	for _, err := range f.open(t, remote.Options{}).Tags(t.Context(), "app") {
		last = err
	}
	if !errors.Is(last, registry.Corrupt) || len(f.seen()) != 2 {
		t.Errorf("%v", last)
	}
	f.answer = func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, `<html>`); return true }
	for _, err := range f.open(t, remote.Options{}).Tags(t.Context(), "app") {
		last = err
	}
	if !errors.Is(last, registry.Unavailable) {
		t.Errorf("%v", last)
	}
}

func TestMissingFails(t *testing.T) {
	f := newFake(t)
	image := registrytest.Image(1, 10, 20, 30)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if isManifest(r) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	}
	if got, err := f.open(t, remote.Options{}).Missing(context.Background(), "app", image.Objects("app")); !errors.Is(err, registry.Unavailable) || got != nil {
		t.Errorf("%v, %v: what could not be asked is not missing", got, err)
	}
}
