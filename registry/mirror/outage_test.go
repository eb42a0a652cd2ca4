package mirror_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// half is a mirror whose disk has a manifest and not its layer, between two upstreams that have everything.
type half struct {
	*mirror.Mirror
	source, destination *registrytest.Faulty
	image               registrytest.Node
}

func newHalf(t *testing.T, fault func(registrytest.Call) error) *half {
	h := &half{image: registrytest.Image(1, 10, 20)}
	full, disk := mem.New(), mem.New()
	registrytest.Push(t, full, repo, "v1", h.image)
	registrytest.Push(t, disk, repo, "", h.image)
	h.source, h.destination = registrytest.NewFaulty(full), registrytest.NewFaulty(full)
	h.source.Before, h.destination.Before = fault, fault
	source, destination := mirror.NewUpstream("source", h.source), mirror.NewUpstream("destination", h.destination)
	layer := h.image.Objects(repo)[1]
	h.Mirror = mirror.New(mirror.Options{Objects: registry.Tiers(without{disk, layer}, destination, source), Source: source, Destination: destination,
		Local: func(o registry.Object) bool {
			_, err := disk.Stat(context.Background(), o)
			return err == nil && o != layer
		}})
	return h
}

// without is a registry that lacks an object.
type without struct {
	registry.Reader
	lacks registry.Object
}

func (w without) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	if o == w.lacks {
		return registry.Descriptor{}, registry.Unknown(o)
	}
	return w.Reader.Stat(ctx, o)
}

func (w without) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	if o == w.lacks {
		return nil, registry.Unknown(o)
	}
	return w.Reader.Open(ctx, o, r)
}

func down(registrytest.Call) error { return registry.Errorf(registry.Unavailable, "down") }

// Nobody has resolved anything: a pull by digest meets the outage before the client has the manifest, at HEAD and at GET.
func TestOutageMetByDigest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHalf(t, down)
		if _, err := h.Stat(t.Context(), manifest(h.image)); registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("stat: %v, want unavailable", err)
		}
		if _, err := open(t, h.Mirror, manifest(h.image)); registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("open: %v, want unavailable", err)
		}
		if n := h.source.Count() + h.destination.Count(); n != 2 {
			t.Errorf("%d calls, want one at each upstream", n)
		}
		h.source.Before = nil // one upstream is enough
		time.Sleep(31 * time.Second)
		if _, err := open(t, h.Mirror, manifest(h.image)); err != nil {
			t.Errorf("with the source back: %v", err)
		}
		if tier, err := open(t, h.Mirror, h.image.Objects(repo)[1]); err != nil || tier != "source" {
			t.Errorf("its layer: %s, %v", tier, err)
		}
	})
}

// Upstreams that never answer are waited for once, a second, by all who ask meanwhile.
func TestProbeIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, disk := registrytest.Image(1, 10, 20), mem.New()
		registrytest.Push(t, disk, repo, "", image)
		silent := mirror.NewUpstream("source", mute{})
		m := mirror.New(mirror.Options{Objects: disk, Source: silent, Local: func(o registry.Object) bool { return o.Kind == registry.Manifest }})
		begun := time.Now()
		var clients sync.WaitGroup
		for range 50 {
			clients.Go(func() {
				if _, err := open(t, m, manifest(image)); registry.ClassOf(err) != registry.Unavailable {
					t.Errorf("open: %v, want unavailable", err)
				}
			})
		}
		clients.Wait()
		if took := time.Since(begun); took != time.Second {
			t.Errorf("took %v, want 1s", took)
		}
	})
}

// mute never answers.
type mute struct{ registry.Reader }

func (mute) Stat(ctx context.Context, _ registry.Object) (registry.Descriptor, error) {
	<-ctx.Done()
	return registry.Descriptor{}, ctx.Err()
}

// Within the life of a tag an outage begins: what HEAD of the tag answers is what GET of its manifest answers.
func TestOutageWithinTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHalf(t, nil)
		if got := resolve(t, h.Mirror, repo, "v1"); got.Tier != "source" {
			t.Fatalf("%+v", got)
		}
		if _, err := open(t, h.Mirror, manifest(h.image)); err != nil {
			t.Fatal(err)
		}
		h.source.Before, h.destination.Before = down, down
		time.Sleep(31 * time.Second) // nobody has been heard for a while; the tag is fresh for as long again
		for range 2 {
			if got := resolve(t, h.Mirror, repo, "v1"); got.Class != registry.Unavailable || got.Desc.Digest != "" {
				t.Errorf("resolve: %+v, want unavailable", got)
			}
			if _, err := open(t, h.Mirror, manifest(h.image)); registry.ClassOf(err) != registry.Unavailable {
				t.Errorf("open: %v, want unavailable", err)
			}
		}
		h.source.Before, h.destination.Before = nil, nil
		time.Sleep(31 * time.Second)
		if got := resolve(t, h.Mirror, repo, "v1"); got.Desc.Digest != h.image.Desc.Digest {
			t.Errorf("once they are back: %+v", got)
		}
	})
}

// What reads by digest have heard counts: no call is made only to learn what is known.
func TestReadsTellOfTheRoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHalf(t, nil)
		if _, err := open(t, h.Mirror, h.image.Objects(repo)[1]); err != nil { // the layer, from the destination
			t.Fatal(err)
		}
		if _, err := open(t, h.Mirror, manifest(h.image)); err != nil {
			t.Fatal(err)
		}
		if got, want := h.destination.Count()+h.source.Count(), 1; got != want {
			t.Errorf("%d calls, want %d", got, want)
		}
		h.source.Before, h.destination.Before = down, down
		if _, err := open(t, h.Mirror, h.image.Objects(repo)[1]); registry.ClassOf(err) != registry.Unavailable {
			t.Fatalf("layer: %v", err)
		}
		h.source.Forget()
		h.destination.Forget()
		if _, err := open(t, h.Mirror, manifest(h.image)); registry.ClassOf(err) != registry.Unavailable {
			t.Errorf("manifest: %v, want unavailable", err)
		}
		if n := h.source.Count() + h.destination.Count(); n != 0 {
			t.Errorf("%d calls to learn what is known", n)
		}
	})
}
