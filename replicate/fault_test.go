package replicate_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func TestCopyFails(t *testing.T) {
	image := registrytest.Image(1, 10)
	for _, c := range []struct {
		name    string
		arrange func(*places, *replicate.Image)
		class   registry.Class
		text    string
		gone    bool
	}{
		{"source lacks a blob", func(p *places, _ *replicate.Image) {
			p.from.Before = func(c registrytest.Call) error {
				if c.Op == "open" && c.Object.Digest == image.Blobs[1].Desc.Digest {
					return registry.Unknown(c.Object)
				}
				return nil
			}
		}, registry.NotFound, "source: blob app@" + image.Blobs[1].Desc.Digest.String() + ": not found", false},
		{"source cuts a blob", func(p *places, _ *replicate.Image) {
			p.from.Body = func(c registrytest.Call) *registrytest.Fault {
				if c.Object.Kind == registry.Blob {
					return &registrytest.Fault{At: 5, Err: registry.Errorf(registry.Unavailable, "cut")}
				}
				return nil
			}
		}, registry.Unavailable, "source: cut", false},
		{"source ends a blob early", func(p *places, _ *replicate.Image) {
			p.from.Body = func(c registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 5, Truncate: true} }
		}, registry.Corrupt, "", false},
		{"source corrupts the manifest", func(p *places, _ *replicate.Image) {
			p.from.Body = func(c registrytest.Call) *registrytest.Fault {
				if c.Object.Kind == registry.Manifest {
					return &registrytest.Fault{At: 5, Corrupt: true}
				}
				return nil
			}
		}, registry.Corrupt, "source: verify", false},
		{"destination corrupts a blob", func(p *places, _ *replicate.Image) {
			p.to.Body = func(c registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 5, Corrupt: true} }
		}, registry.Corrupt, "destination: put blob", false},
		{"destination creates no repositories", func(p *places, im *replicate.Image) {
			im.Destination.Writer = writerOnly{p.to}
		}, registry.NotFound, "destination: repository app: not found", false},
		{"destination may create no repositories", func(p *places, im *replicate.Image) {
			p.to.Before = registrytest.FailNth("create", 0, registry.Errorf(registry.Denied, "no"))
		}, registry.Denied, "destination: no", false},
		{"tag is gone", func(p *places, _ *replicate.Image) {
			p.from.Before = registrytest.FailNth("resolve", 0, registry.Errorf(registry.NotFound, "no such tag"))
		}, registry.NotFound, "gone from the source: source: no such tag", true},
		{"tag is gone before it is written", func(p *places, _ *replicate.Image) {
			p.from.Before = registrytest.FailNth("resolve", 2, registry.Errorf(registry.NotFound, "no such tag"))
		}, registry.NotFound, "gone", true},
		{"source cannot be asked", func(p *places, _ *replicate.Image) {
			p.from.Before = registrytest.FailNth("resolve", 0, registry.Errorf(registry.Unavailable, "503"))
		}, registry.Unavailable, "source: 503", false},
		{"destination cannot be asked", func(p *places, _ *replicate.Image) {
			p.to.Before = registrytest.FailNth("resolve", 0, registry.Errorf(registry.Throttled, "429"))
		}, registry.Throttled, "destination: 429", false},
		{"tag without its manifest", func(p *places, _ *replicate.Image) {
			p.from.Before = registrytest.FailNth("open", 0, registry.Unknown(registry.Object{Repo: "app", Kind: registry.Manifest, Digest: image.Desc.Digest}))
		}, registry.NotFound, "source: manifest app@" + image.Desc.Digest.String(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlaces()
			registrytest.Push(t, p.src, "app", "v1", image)
			im := p.image("app")
			c.arrange(&p, &im)
			var cp replicate.Copier
			_, err := cp.Tag(t.Context(), im, "v1")
			if err == nil || registry.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.text) || errors.Is(err, replicate.ErrGone) != c.gone {
				t.Errorf("got %v (%v), want %v with %q, gone %v", err, registry.ClassOf(err), c.class, c.text, c.gone)
			}
			if d, err := p.dst.Resolve(t.Context(), "app", "v1"); err == nil {
				t.Errorf("the tag was written: %v", d)
			}
		})
	}
}

// Every fault twice: the call failed, and it failed although it took effect. The next attempt completes the image, and at
// no time is the tag there without all below it.
func TestCopyFaults(t *testing.T) {
	root := registrytest.Index(registrytest.Image(1, 10, 20), registrytest.Image(2, 30))
	run := func(t *testing.T, arm func(*registrytest.Faulty, func(registrytest.Call) error), op string, nth int) bool {
		p := newPlaces()
		registrytest.Push(t, p.src, "app", "v1", root)
		hit := false
		arm(p.to, func(c registrytest.Call) error {
			if c.Op == op && c.N == nth && !hit {
				hit = true
				return registry.Errorf(registry.Unavailable, "fault")
			}
			return nil
		})
		c := replicate.Copier{Parallel: 2}
		_, err := c.Tag(t.Context(), p.image("app"), "v1")
		if !hit {
			must(t, err)
			return false
		}
		if err == nil || registry.ClassOf(err) != registry.Unavailable || !strings.Contains(err.Error(), "destination: fault") {
			t.Errorf("%s %d: %v", op, nth, err)
		}
		if _, err := p.dst.Resolve(t.Context(), "app", "v1"); err == nil {
			has(t, p.dst, "app", root)
		}
		_, err = c.Tag(t.Context(), p.image("app"), "v1")
		must(t, err)
		has(t, p.dst, "app", root)
		names(t, p.dst, "app", "v1", root)
		return true
	}
	for name, arm := range map[string]func(*registrytest.Faulty, func(registrytest.Call) error){
		"failed":              func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.Before = h },
		"failed after effect": func(f *registrytest.Faulty, h func(registrytest.Call) error) { f.After = h },
	} {
		t.Run(name, func(t *testing.T) {
			for op, calls := range map[string]int{"resolve": 1, "missing": 4, "create": 1, "put-blob": 5, "put-manifest": 3} {
				hits := 0
				for nth := range 8 {
					if run(t, arm, op, nth+1) {
						hits++
					}
				}
				if hits < calls {
					t.Errorf("%s: %d calls failed in turn, want at least %d", op, hits, calls)
				}
			}
		})
	}
}

func TestCopyCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces()
		image := registrytest.Image(1, 10)
		registrytest.Push(t, p.src, "app", "v1", image)
		ctx, cancel := context.WithCancel(t.Context())
		p.to.Before = func(c registrytest.Call) error {
			if c.Op == "put-blob" {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		var c replicate.Copier
		errs := make(chan error)
		for range 2 { // one sends, the other waits for it: both come back
			go func() { _, err := c.Tag(ctx, p.image("app"), "v1"); errs <- err }()
		}
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-errs; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled copy: %v", err)
			}
		}
		p.to.Before = nil
		_, err := c.Tag(t.Context(), p.image("app"), "v1")
		must(t, err)
		names(t, p.dst, "app", "v1", image)
	})
}

func TestCopyContentGone(t *testing.T) {
	p := newPlaces()
	var c replicate.Copier
	if _, err := c.Content(t.Context(), p.image("app"), d1); !errors.Is(err, replicate.ErrGone) {
		t.Errorf("content that is not there: %v", err)
	}
	// A child that is not there is not the image's being gone.
	child := registrytest.Image(1, 10)
	root := registrytest.Index(child)
	registrytest.Push(t, p.src, "app", "v1", root)
	p.from.Before = func(c registrytest.Call) error {
		if c.Op == "open" && c.Object.Digest == child.Desc.Digest {
			return registry.Unknown(c.Object)
		}
		return nil
	}
	_, err := c.Content(t.Context(), p.image("app"), root.Desc.Digest)
	if errors.Is(err, replicate.ErrGone) || !errors.Is(err, registry.NotFound) || !strings.Contains(err.Error(), child.Desc.Digest.String()) {
		t.Errorf("missing child: %v", err)
	}
}

// A repository that vanishes from the source in mid-copy is not created at the destination once more for it.
func TestCopyRepositoryGone(t *testing.T) {
	p := newPlaces()
	image := registrytest.Image(1, 10)
	registrytest.Push(t, p.src, "app", "v1", image)
	registrytest.Push(t, p.dst, "app", "other", registrytest.Image(2, 10))
	gone := registry.Errorf(registry.NotFound, "repository app: not found")
	gone.Code = registry.CodeNameUnknown
	p.from.Before = func(c registrytest.Call) error {
		if c.Op == "open" && c.Object.Kind == registry.Blob {
			return gone
		}
		return nil
	}
	var c replicate.Copier
	if _, err := c.Content(t.Context(), p.image("app"), image.Desc.Digest); !errors.Is(err, registry.NotFound) {
		t.Errorf("got %v", err)
	}
	if n := p.to.Count("create"); n != 0 {
		t.Errorf("the repository was created %d times", n)
	}
}
