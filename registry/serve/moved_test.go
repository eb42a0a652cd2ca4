package serve_test

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Between the answer about a tag and the read of what it names the tag moves, and what it named is deleted: the client gets what it
// names now.
func TestTagMovesWhileItIsPulled(t *testing.T) {
	w := newWorld(t, nil)
	now := registrytest.Image(9, 10)
	w.faulty.After = func(c registrytest.Call) error {
		if c.Op == "resolve" && c.N == 1 {
			registrytest.Push(t, w.mem, "app", "v1", now)
			return w.mem.DeleteManifest(t.Context(), "app", w.image.Desc.Digest)
		}
		return nil
	}
	a := w.do(t, http.MethodGet, "/v2/app/manifests/v1")
	if a.status != http.StatusOK || !bytes.Equal(a.body, now.Body) {
		t.Errorf("%d %s, want %s", a.status, a.body, now.Body)
	}
	w.faulty.After = nil
	w.faulty.Forget()
	a = w.do(t, http.MethodGet, "/v2/app/manifests/"+w.image.Desc.Digest.String())
	if a.status != http.StatusNotFound || w.faulty.Count("resolve") != 0 {
		t.Errorf("what is gone: %d, %v", a.status, w.faulty.Calls())
	}
}
