package storage_test

import (
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// A purged repository has nothing without its upstream's word, at once and after a restart; other repositories and
// namespaces keep what they have.
func TestPurge(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	up, m, blob, body := upstream(t, 1000)
	image := registrytest.Image(1, 10)
	registrytest.Push(t, m, "app", "", image)
	registrytest.Push(t, m, "my/app", "", image)
	manifest := registry.Object{Repo: "app", Kind: registry.Manifest, Digest: image.Desc.Digest}
	nested := registry.Object{Repo: "my/app", Kind: registry.Manifest, Digest: image.Desc.Digest}
	objects := []registry.Object{blob, manifest, nested}
	for _, ns := range []string{"m", "n"} {
		for _, o := range objects {
			if _, err := read(t.Context(), s.Over(ns, up), o, registry.Whole); err != nil {
				t.Fatal(err)
			}
			for !s.Has(ns, o) { // until it is committed
				time.Sleep(time.Millisecond)
			}
		}
		for _, ref := range [][2]string{{"app", "v1"}, {"app", "v2"}, {"app2", "v1"}} {
			if err := s.Tags(ns).Save(ref[0], ref[1], image.Desc, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Purge("m", "app"); err != nil {
		t.Fatal(err)
	}
	check := func(when string) {
		t.Helper()
		for _, ns := range []string{"m", "n"} {
			for _, o := range objects {
				if want := ns == "n" || o == nested; s.Has(ns, o) != want {
					t.Errorf("%s: %s has %v: %v, want %v", when, ns, o, !want, want)
				}
			}
			for _, ref := range [][2]string{{"app", "v1"}, {"app", "v2"}, {"app2", "v1"}} {
				if _, _, ok := s.Tags(ns).Load(ref[0], ref[1]); ok != (ns == "n" || ref[0] == "app2") {
					t.Errorf("%s: %s knows %s: %v", when, ns, ref, ok)
				}
			}
		}
	}
	check("at once")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, storage.Options{Path: dir})
	check("after a restart")
	if err := s.Purge("m", "app"); err != nil { // now from the file
		t.Fatal(err)
	}
	if err := s.Purge("n", "app"); err != nil {
		t.Fatal(err)
	}
	if s.Has("n", blob) || !s.Has("n", nested) {
		t.Error("a purge of what was read from the file")
	}
	up.Forget()
	wantBytes(t, s.Over("m", up), blob, registry.Whole, body)
	wantCalls(t, up, 0, 1) // the bytes are still here: the upstream has only to say that they are there
}
