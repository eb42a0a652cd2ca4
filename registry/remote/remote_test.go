package remote_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSuite(t *testing.T) {
	for _, tt := range []struct {
		name   string
		strict bool
		answer func(http.ResponseWriter, *http.Request) bool
	}{
		{name: "plain"},
		{name: "strict", strict: true},
		{name: "no ranges", answer: func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("Range"); return false }},
		{name: "bare headers", answer: func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodHead && isManifest(r) { // HEAD of manifests says too little: a GET follows
				w.WriteHeader(http.StatusOK)
				return true
			}
			return false
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registrytest.Subject {
				f := newFake(t)
				f.StrictRepos, f.answer = tt.strict, tt.answer
				r := f.open(t, remote.Options{})
				s := registrytest.Subject{Reader: r, Writer: r, Lister: r, EmptyBlobs: true, StrictRepos: tt.strict}
				if tt.strict {
					s.Writer = provisioned{r, f}
				}
				return s
			})
		})
	}
}

// provisioned creates repositories in the fake behind the Registry's back.
type provisioned struct {
	*remote.Registry
	registry.Provisioner
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		o    remote.Options
		want string // host; "" is Invalid
	}{
		{remote.Options{Registry: "registry.example"}, "registry.example"},
		{remote.Options{Registry: "https://Registry.example:5000/"}, "registry.example:5000"},
		{remote.Options{Registry: "docker.io"}, "registry-1.docker.io"},
		{remote.Options{Registry: "http://127.0.0.1:5010"}, "127.0.0.1:5010"},
		{remote.Options{Registry: "http://[::1]:5010"}, "[::1]:5010"},
		{remote.Options{Registry: "http://localhost"}, "localhost"},
		{remote.Options{Registry: "http://registry.example", Insecure: true}, "registry.example"},
		{remote.Options{Registry: "http://registry.example"}, ""},
		{remote.Options{Registry: "http://127.0.0.1.example"}, ""},
		{remote.Options{Registry: "ftp://registry.example"}, ""},
		{remote.Options{Registry: "https://user:secret@registry.example"}, ""},
		{remote.Options{Registry: "registry.example/path"}, ""},
		{remote.Options{Registry: "registry.example?x"}, ""},
		{remote.Options{Registry: ""}, ""},
		{remote.Options{Registry: "https://%zz"}, ""},
		{remote.Options{Registry: "registry.example", Password: "secret"}, ""},
	} {
		r, err := remote.New(tt.o)
		switch {
		case tt.want == "" && !errors.Is(err, registry.Invalid):
			t.Errorf("%q: %v, %v, want Invalid", tt.o.Registry, r, err)
		case tt.want != "" && (err != nil || r.String() != tt.want):
			t.Errorf("%q: %v, %v, want %s", tt.o.Registry, r, err, tt.want)
		}
	}
}

// What each operation costs the registry: exact requests, in their order.
func TestRequests(t *testing.T) {
	f := newFake(t)
	r := f.open(t, remote.Options{})
	image := registrytest.Image(1, 100)
	config, layer := image.Blobs[0], image.Blobs[1]
	registrytest.Push(t, r, "app", "v1", image)
	c6, l6, m6 := config.Desc.Digest.Encoded()[:6], layer.Desc.Digest.Encoded()[:6], image.Desc.Digest.Encoded()[:6]
	check := func(what string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, f.seen()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", what, diff)
		}
	}
	check("push",
		"POST /v2/app/blobs/uploads/", "PUT /v2/app/blobs/uploads/session?digest=sha256%3A"+config.Desc.Digest.Encoded()+"&state=s",
		"POST /v2/app/blobs/uploads/", "PUT /v2/app/blobs/uploads/session?digest=sha256%3A"+layer.Desc.Digest.Encoded()+"&state=s",
		"PUT /v2/app/manifests/v1")
	blob := image.Objects("app")[1]
	manifest := image.Objects("app")[2]
	read := func(o registry.Object, rg registry.Range) {
		t.Helper()
		c, err := r.Open(t.Context(), o, rg)
		if err != nil {
			t.Fatal(err)
		}
		if c.Sequential {
			t.Error("sequential, though the registry knows ranges")
		}
		c.Close()
	}
	_, err := r.Resolve(t.Context(), "app", "v1")
	check("resolve", "HEAD /v2/app/manifests/v1")
	_, err2 := r.Stat(t.Context(), blob)
	check("stat", "HEAD /v2/app/blobs/"+l6)
	if err := errors.Join(err, err2); err != nil {
		t.Error(err)
	}
	read(manifest, registry.Whole)
	check("open a manifest", "GET /v2/app/manifests/"+m6)
	read(blob, registry.Whole)
	check("open a blob", "GET /v2/app/blobs/"+l6)
	read(blob, registry.Range{Offset: 10, Length: 5})
	check("open a range", "GET /v2/app/blobs/"+l6+" bytes=10-14")
	read(blob, registry.Range{Offset: 10, Length: -1})
	check("open an open range", "GET /v2/app/blobs/"+l6+" bytes=10-")
	read(blob, registry.Range{Offset: 10, Length: 1<<63 - 1})
	check("open a huge range", "GET /v2/app/blobs/"+l6+" bytes=10-")
	if _, err := r.Missing(t.Context(), "app", image.Objects("")[:1]); err != nil {
		t.Error(err)
	}
	check("missing", "HEAD /v2/app/blobs/"+c6)
	if ok, err := r.Mount(t.Context(), registry.Object{Repo: "other", Digest: layer.Desc.Digest}, "app"); !ok || err != nil {
		t.Error(ok, err)
	}
	check("mount", "POST /v2/other/blobs/uploads/?from=app&mount=sha256%3A"+layer.Desc.Digest.Encoded())
	if ok, err := r.Mount(t.Context(), registry.Object{Repo: "other", Digest: layer.Desc.Digest}, "nowhere"); ok || err != nil {
		t.Error(ok, err)
	}
	check("mount refused", "POST /v2/other/blobs/uploads/?from=nowhere&mount=sha256%3A"+layer.Desc.Digest.Encoded(), "DELETE /v2/other/blobs/uploads/session?state=s")
	for _, tag := range []string{"v2", "v3"} {
		registrytest.Push(t, f.Registry, "app", tag, image)
	}
	for range r.Tags(t.Context(), "app") {
	}
	check("tags", "GET /v2/app/tags/list?n=1000", "GET /v2/app/tags/list?last=v2&n=1000")
	for range r.Referrers(t.Context(), "app", image.Desc.Digest, "a/b") {
	}
	check("referrers", "GET /v2/app/referrers/"+m6+"?artifactType=a%2Fb")
	for range 2 { // the second time it is gone already
		if err := r.DeleteManifest(t.Context(), "app", image.Desc.Digest); err != nil {
			t.Error(err)
		}
		check("delete", "DELETE /v2/app/manifests/"+m6)
	}
}

// Names that do not match the grammar never become paths.
func TestNamesAreChecked(t *testing.T) {
	f := newFake(t)
	r := f.open(t, remote.Options{})
	image := registrytest.Image(1, 1)
	bad := image.Objects("../app")[0]
	noDigest := registry.Object{Repo: "app", Digest: "sha256:../../x"}
	_, err1 := r.Resolve(t.Context(), "app/../x", "v1")
	_, err2 := r.Resolve(t.Context(), "app", "../v1")
	_, err3 := r.Stat(t.Context(), bad)
	_, err4 := r.Open(t.Context(), noDigest, registry.Whole)
	_, err5 := r.Mount(t.Context(), image.Objects("app")[0], "a?b")
	err6 := r.PutManifest(t.Context(), "app", "a/b", image.Desc, image.Body)
	err7 := r.DeleteManifest(t.Context(), "app", "x")
	var err8, err9 error
	for _, err := range r.Tags(t.Context(), "A") {
		err8 = err
	}
	for _, err := range r.Referrers(t.Context(), "app", "x:y", "") {
		err9 = err
	}
	for i, err := range []error{err1, err2, err3, err4, err5, err6, err7, err8, err9} {
		if !errors.Is(err, registry.Invalid) {
			t.Errorf("%d: %v, want Invalid", i+1, err)
		}
	}
	if got := f.seen(); len(got) != 0 {
		t.Errorf("requests %v", got)
	}
}
