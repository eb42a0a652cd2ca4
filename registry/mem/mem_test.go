package mem_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestSuite(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(map[bool]string{false: "creates", true: "strict"}[strict], func(t *testing.T) {
			registrytest.Run(t, func(*testing.T) registrytest.Subject {
				r := mem.New()
				r.StrictRepos = strict
				return registrytest.Subject{Reader: r, Writer: r, Lister: r, StrictRepos: strict, EmptyBlobs: true}
			})
		})
	}
}

func TestCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock moves only in Sleep
		r := mem.New()
		one, two := registrytest.Image(1, 10), registrytest.Image(2, 10)
		registrytest.Push(t, r, "b", "v1", one)
		registrytest.Push(t, r, "b", "latest", one)
		registrytest.Push(t, r, "a", "", one)
		time.Sleep(time.Hour)
		later := time.Now()
		registrytest.Push(t, r, "b", "", two)
		registrytest.Push(t, r, "b", "v1", one) // pushed again: its date remains

		var repos []string
		for name, err := range r.Repositories(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			repos = append(repos, name)
		}
		if diff := cmp.Diff([]string{"a", "b"}, repos); diff != "" {
			t.Errorf("repositories (-want +got):\n%s", diff)
		}
		images := func(since time.Time) (out []registry.Image) {
			for img, err := range r.Images(t.Context(), "b", since) {
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, img)
			}
			return out
		}
		first := registry.Image{Descriptor: one.Desc, Tags: []string{"latest", "v1"}, PushedAt: later.Add(-time.Hour)}
		second := registry.Image{Descriptor: two.Desc, PushedAt: later}
		if diff := cmp.Diff([]registry.Image{first, second}, images(time.Time{})); diff != "" {
			t.Errorf("all images (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]registry.Image{second}, images(later)); diff != "" {
			t.Errorf("images since (-want +got):\n%s", diff)
		}
		for _, err := range r.Images(t.Context(), "nowhere", time.Time{}) {
			if registry.CodeOf(err) != registry.CodeNameUnknown {
				t.Errorf("images of an absent repository: %v", err)
			}
		}
	})
}

func TestDelete(t *testing.T) {
	r := mem.New()
	one, two := registrytest.Image(1, 10), registrytest.Image(2, 10)
	registrytest.Push(t, r, "app", "v1", one)
	registrytest.Push(t, r, "app", "latest", one)
	registrytest.Push(t, r, "app", "v2", two)
	for range 2 { // what is absent already is success
		if err := r.DeleteManifest(t.Context(), "app", one.Desc.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.DeleteManifest(t.Context(), "nowhere", one.Desc.Digest); err != nil {
		t.Errorf("delete in an absent repository: %v", err)
	}
	var tags []string
	for tag := range r.Tags(t.Context(), "app") {
		tags = append(tags, tag)
	}
	if diff := cmp.Diff([]string{"v2"}, tags); diff != "" {
		t.Errorf("tags left (-want +got):\n%s", diff)
	}
	if missing, err := r.Missing(t.Context(), "app", one.Objects("app")); err != nil || len(missing) != 1 || missing[0].Kind != registry.Manifest {
		t.Errorf("missing %v, %v: the manifest alone is gone", missing, err)
	}
}
