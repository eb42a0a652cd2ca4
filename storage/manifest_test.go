package storage_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func pushed(t *testing.T) (*registrytest.Faulty, registry.Object, registrytest.Node) {
	m := mem.New()
	img := registrytest.Image(7, 10)
	registrytest.Push(t, m, "app", "v1", img)
	return registrytest.NewFaulty(m), registry.Object{Repo: "app", Kind: registry.Manifest, Digest: img.Desc.Digest}, img
}

func TestManifestIsFetchedOnce(t *testing.T) {
	up, o, img := pushed(t)
	release := make(chan struct{})
	up.Before = func(registrytest.Call) error { <-release; return nil }
	r := openStore(t, storage.Options{}).Over("m", up)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := r.Open(ctx, o, registry.Whole)
		gone <- err
	}()
	for up.Count("open") == 0 {
	}
	leave() // the one who asked first leaves
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("left: %v", err)
	}
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() { wantSame(t, r, o, registry.Whole, img.Body) })
	}
	close(release)
	wg.Wait()
	wantBytes(t, r, o, registry.Range{Offset: 2, Length: 3}, img.Body[2:5])
	wantCalls(t, up, 1, 0)
	// A manifest is none under the blobs, though its bytes are here.
	blob := registry.Object{Repo: "app", Digest: o.Digest}
	if _, err := r.Open(t.Context(), blob, registry.Whole); !errors.Is(err, registry.NotFound) {
		t.Errorf("manifest under blobs: %v, want not found", err)
	}
}

func TestManifestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		fault registrytest.Fault
		want  registry.Class
	}{
		"corrupt":   {registrytest.Fault{At: 5, Corrupt: true}, registry.Corrupt},
		"truncated": {registrytest.Fault{At: 5, Truncate: true}, registry.Corrupt},
		"broken":    {registrytest.Fault{At: 5, Err: errors.New("reset")}, registry.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			up, o, img := pushed(t)
			up.Body = func(c registrytest.Call) *registrytest.Fault {
				if c.N == 1 {
					return &tt.fault
				}
				return nil
			}
			r := openStore(t, storage.Options{}).Over("m", up)
			if _, err := r.Open(t.Context(), o, registry.Whole); registry.ClassOf(err) != tt.want {
				t.Errorf("open: %v, want %v", err, tt.want)
			}
			wantBytes(t, r, o, registry.Whole, img.Body)
			wantCalls(t, up, 2, 0)
		})
	}
}

// TestManifestRots shows that a manifest read from the disk is verified again.
// Neither a digest nor a later answer would put right what an upstream once said of a manifest's type: it speaks for itself.
func TestManifestTypeIsItsOwn(t *testing.T) {
	up, o, img := pushed(t)
	wrong := mistyped{up}
	r := openStore(t, storage.Options{}).Over("m", wrong)
	for range 2 { // from upstream, and from here
		c, err := r.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		if c.Descriptor.MediaType != img.Desc.MediaType {
			t.Errorf("type %q, want %q", c.Descriptor.MediaType, img.Desc.MediaType)
		}
		c.Close()
	}
}

// mistyped says something wrong of what it sends.
type mistyped struct{ registry.Reader }

func (m mistyped) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := m.Reader.Open(ctx, o, r)
	if err == nil {
		c.Descriptor.MediaType = "application/vnd.oci.image.mani\xf1est.v1+json"
	}
	return c, err
}

func TestManifestRots(t *testing.T) {
	up, o, img := pushed(t)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, img.Body)
	s.Close()
	if err := overwrite(filepath.Join(dir, "blobs", "sha256", o.Digest.Encoded()[:2], o.Digest.Encoded()), 3, []byte{0}); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, img.Body)
	wantCalls(t, up, 2, 0)
	if entries, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(entries) > 0 {
		t.Errorf("left in tmp: %v, %v", entries, err)
	}
}

// TestManifestIsNotReadable shows that a read which fails for reasons of its own (here a loop of links in its way) costs a
// fetch, not the manifest.
func TestManifestIsNotReadable(t *testing.T) {
	up, o, img := pushed(t)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, img.Body)
	s.Close()
	s = openStore(t, storage.Options{Path: dir})
	r := s.Over("m", up)
	path := filepath.Join(dir, "blobs", "sha256", o.Digest.Encoded()[:2], o.Digest.Encoded())
	if err := errors.Join(os.Rename(path, path+".aside"), os.Symlink(path, path)); err != nil {
		t.Fatal(err)
	}
	up.Before = registrytest.FailNth("", 0, registry.Errorf(registry.Unavailable, "source is down"))
	if _, err := read(t.Context(), r, o, registry.Whole); !errors.Is(err, registry.Unavailable) {
		t.Errorf("not readable: %v, want upstream's answer", err)
	}
	if err := os.Rename(path+".aside", path); err != nil {
		t.Fatal(err)
	}
	wantBytes(t, r, o, registry.Whole, img.Body)
}

func TestClosed(t *testing.T) {
	up, o, _ := pushed(t)
	s := openStore(t, storage.Options{})
	r := s.Over("m", up)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []registry.Kind{registry.Manifest, registry.Blob} {
		o.Kind = kind
		if _, err := r.Open(t.Context(), o, registry.Whole); !errors.Is(err, registry.Unavailable) {
			t.Errorf("open %v after Close: %v, want unavailable", kind, err)
		}
	}
}
