package remote_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

func TestCatalog(t *testing.T) {
	f := newFake(t)
	r := f.open(t, remote.Options{})
	one, two := registrytest.Image(1, 10), registrytest.Image(2, 10)
	for _, tag := range []string{"a", "b"} {
		registrytest.Push(t, f.Registry, "team/app", tag, one)
	}
	registrytest.Push(t, f.Registry, "team/app", "c", two)
	registrytest.Push(t, f.Registry, "team/app", "gone", two)
	registrytest.Push(t, f.Registry, "team/app", "", registrytest.Image(3, 10))
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/v2/_catalog" && r.URL.Query().Get("last") == "":
			w.Header().Set("Link", `</v2/_catalog?n=1000&last=team%2Fapp>; rel="next"`)
			w.Write([]byte(`{"repositories":["base","team/app","../No Name"]}`))
		case r.URL.Path == "/v2/_catalog":
			w.Write([]byte(`{"repositories":["z"]}`))
		case r.Method == http.MethodHead && r.URL.Path == "/v2/team/app/manifests/gone": // deleted since it was listed
			w.WriteHeader(http.StatusNotFound)
		default:
			return false
		}
		return true
	}
	var repos []string
	for repo, err := range r.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, repo)
	}
	if want := []string{"base", "team/app", "z"}; !slices.Equal(repos, want) {
		t.Errorf("repositories %v, want %v", repos, want)
	}
	var images []registry.Image
	for img, err := range r.Images(t.Context(), "team/app", time.Now()) {
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, img)
	}
	want := []registry.Image{{Descriptor: one.Desc, Tags: []string{"a", "b"}}, {Descriptor: two.Desc, Tags: []string{"c"}}}
	if d := cmp.Diff(want, images); d != "" {
		t.Errorf("images (-want +got):\n%s", d)
	}
}

func TestCatalogRefused(t *testing.T) {
	f := newFake(t)
	r := f.open(t, remote.Options{})
	for status, want := range map[int]registry.Class{http.StatusNotFound: registry.NotFound, http.StatusForbidden: registry.Denied,
		http.StatusBadGateway: registry.Unavailable} {
		f.answer = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(status); return true }
		n := 0
		for _, err := range r.Repositories(t.Context()) {
			if n++; registry.ClassOf(err) != want {
				t.Errorf("%d: %v", status, err)
			}
		}
		if n != 1 {
			t.Errorf("%d: %d answers", status, n)
		}
	}
	f.answer = nil
	for _, err := range r.Images(t.Context(), "never", time.Time{}) {
		if registry.CodeOf(err) != registry.CodeNameUnknown {
			t.Errorf("images of an absent repository: %v", err)
		}
	}
}
