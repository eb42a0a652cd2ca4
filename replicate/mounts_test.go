package replicate_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// A blob that was copied to one repository of the destination is mounted to the next: it is neither read nor sent again.
func TestMountFromAnotherRepository(t *testing.T) {
	p := newPlaces()
	image := registrytest.Index(registrytest.Image(1, 100), registrytest.Image(2, 100))
	var c replicate.Copier
	for _, repo := range []string{"a", "b", "c"} {
		registrytest.Push(t, p.src, repo, "v1", image)
		_, err := c.Tag(t.Context(), p.image(repo), "v1")
		must(t, err)
		names(t, p.dst, repo, "v1", image)
		has(t, p.dst, repo, image)
	}
	if n := p.to.Count("put-blob"); n != 4 {
		t.Errorf("%d blobs were sent, want 4", n)
	}
	if n := p.to.Count("mount"); n != 8 {
		t.Errorf("%d mounts, want 8", n)
	}
	reads := 0
	for _, call := range p.from.Calls() {
		if len(call) > 9 && call[:9] == "open blob" {
			reads++
		}
	}
	if reads != 4 {
		t.Errorf("%d reads of blobs at the source, want 4", reads)
	}
}

// Every fault twice: a mount that fails, with or without effect, is an upload; a destination that declines is left alone.
func TestMountFails(t *testing.T) {
	image := registrytest.Image(1, 100)
	fail := func(c registrytest.Call) error {
		if c.Op == "mount" {
			return registry.Errorf(registry.Unavailable, "fault")
		}
		return nil
	}
	for name, arm := range map[string]func(*registrytest.Faulty){
		"failed":              func(f *registrytest.Faulty) { f.Before = fail },
		"failed after effect": func(f *registrytest.Faulty) { f.After = fail },
	} {
		p := newPlaces()
		arm(p.to)
		c := replicate.Copier{Parallel: 1}
		for _, repo := range []string{"a", "b"} {
			registrytest.Push(t, p.src, repo, "v1", image)
			_, err := c.Tag(t.Context(), p.image(repo), "v1")
			must(t, err)
			names(t, p.dst, repo, "v1", image)
		}
		if m, b := p.to.Count("mount"), p.to.Count("put-blob"); m != 2 || b != 4 {
			t.Errorf("%s: %d mounts, %d uploads, want 2 and 4", name, m, b)
		}
	}

	synctest.Test(t, func(t *testing.T) {
		p := newPlaces()
		c := replicate.Copier{Parallel: 1}
		copyTo := func(i int) int {
			before := p.to.Count("mount")
			repo := fmt.Sprint("r", i)
			registrytest.Push(t, p.src, repo, "v1", image)
			im := p.image(repo)
			im.Destination.Writer = declining{p.to}
			_, err := c.Tag(t.Context(), im, "v1")
			must(t, err)
			return p.to.Count("mount") - before
		}
		for i, want := range []int{0, 1, 0, 0} { // nothing is known; declined at the first; not asked
			if got := copyTo(i); got != want {
				t.Errorf("copy %d: %d mounts, want %d", i, got, want)
			}
		}
		time.Sleep(11 * time.Minute)
		if got := copyTo(9); got != 1 {
			t.Errorf("later: %d mounts, want 1", got)
		}
	})
}

// declining mounts nothing.
type declining struct{ *registrytest.Faulty }

func (d declining) Mount(ctx context.Context, o registry.Object, from string) (bool, error) {
	if _, err := d.Faulty.Mount(ctx, registry.Object{Repo: o.Repo, Digest: digest.FromString("nowhere")}, from); err != nil {
		return false, err
	}
	return false, nil
}
