package replicate_test

import (
	"errors"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// An image that is deleted at the source while it is copied is gone, whichever part of it was asked for; one that lacks a part is
// a defect that somebody has to look at.
func TestDeletedWhileItIsCopied(t *testing.T) {
	for _, deleted := range []bool{true, false} {
		for _, byTag := range []bool{true, false} {
			p := newPlaces()
			img := registrytest.Image(1, 10)
			registrytest.Push(t, p.src, "app", "v1", img)
			p.from.Before = func(c registrytest.Call) error {
				if c.Op != "open" || c.Object.Kind != registry.Blob {
					return nil
				}
				if deleted {
					_ = p.src.DeleteManifest(t.Context(), "app", img.Desc.Digest) // the second blob finds it gone
				}
				return registry.Unknown(c.Object)
			}
			var c replicate.Copier
			var err error
			if byTag {
				_, err = c.Tag(t.Context(), p.image("app"), "v1")
			} else {
				_, err = c.Content(t.Context(), p.image("app"), img.Desc.Digest)
			}
			if err == nil || errors.Is(err, replicate.ErrGone) != deleted {
				t.Errorf("deleted %v, by tag %v: %v", deleted, byTag, err)
			}
		}
	}
}
