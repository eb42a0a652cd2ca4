package mirror_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// A tag that the source moved or made is reported by the first pull of its manifest, also when the bytes are local.
func TestMissedTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, dst, disk := mem.New(), mem.New(), mem.New()
		a, b, cold := registrytest.Image(1, 10), registrytest.Image(2, 10), registrytest.Image(3, 10)
		registrytest.Push(t, disk, repo, "", a)
		registrytest.Push(t, disk, repo, "", b)
		registrytest.Push(t, dst, repo, "other", b)
		tags := map[string]registrytest.Node{"v1": a}
		registrytest.Push(t, src, repo, "", cold)
		up := &naming{Reader: src, tags: tags}
		source := registry.Named("source", up)
		var got []string
		var refuse error
		named := map[string]string{a.Desc.Digest.String(): "a", b.Desc.Digest.String(): "b", cold.Desc.Digest.String(): "cold"}
		known := newStore()
		start := func(destination registry.Reader) *mirror.Mirror {
			return mirror.New(mirror.Options{Objects: registry.Tiers(disk, dst, source), Source: source, Destination: destination, Tags: known,
				Missed: func(m mirror.Miss) error {
					got = append(got, m.Tag+" "+named[m.Descriptor.Digest.String()])
					return refuse
				}})
		}
		m := start(dst)
		head := func(tag string) { m.Resolve(t.Context(), repo, tag) }
		get := func(n registrytest.Node) {
			t.Helper()
			if _, err := open(t, m, manifest(n)); err != nil {
				t.Fatal(err)
			}
		}
		pull := func(tag string, n registrytest.Node) {
			t.Helper()
			if d, err := m.Resolve(t.Context(), repo, tag); err != nil || d.Digest != n.Desc.Digest {
				t.Fatalf("resolve %s: %v, %v", tag, d.Digest, err)
			}
			get(n)
		}
		for _, step := range []struct {
			name string
			do   func()
			want []string
		}{
			{"nobody resolved a tag", func() { get(a) }, nil},
			{"HEAD", func() { head("v1"); m.Stat(t.Context(), manifest(a)) }, nil},
			{"GET", func() { get(a) }, []string{"v1 a"}},
			{"the same answer", func() { pull("v1", a); pull("v1", a) }, nil},
			{"the same, asked again", func() { time.Sleep(time.Hour); pull("v1", a) }, nil},
			{"a second tag", func() { tags["v2"] = a; pull("v2", a); pull("v2", a) }, []string{"v2 a"}},
			{"two more, resolved before either is pulled", func() { tags["v3"], tags["v4"] = a, a; head("v3"); head("v4"); get(a); get(a) }, []string{"v3 a", "v4 a"}},
			{"moved", func() { tags["v1"] = b; m.Invalidate(repo, "v1"); pull("v1", b); get(a) }, []string{"v1 b"}},
			{"moved back", func() { tags["v1"] = a; m.Invalidate(repo, "v1"); pull("v1", a); get(b) }, []string{"v1 a"}},
			{"moved before its GET", func() {
				tags["v5"] = a
				head("v5")
				tags["v5"] = b
				m.Invalidate(repo, "v5")
				head("v5")
				get(a)
				get(b)
			}, []string{"v5 b"}},
			{"gone and back", func() {
				delete(tags, "v1")
				m.Invalidate(repo, "v1")
				head("v1")
				tags["v1"] = a
				m.Invalidate(repo, "v1")
				pull("v1", a)
			}, []string{"v1 a"}},
			{"the destination's word", func() { up.down = true; pull("other", b) }, nil},
			{"the last known answer", func() { time.Sleep(time.Hour); pull("v1", a) }, nil},
			{"the source's word", func() { up.down = false; tags["other"] = b; time.Sleep(time.Hour); pull("other", b) }, []string{"other b"}},
			{"refused", func() { refuse = errors.New("disk full"); tags["v6"] = a; pull("v6", a) }, []string{"v6 a"}},
			{"accepted", func() { refuse = nil; pull("v6", a); pull("v6", a) }, []string{"v6 a"}},
			{"bytes from the source", func() { tags["c"] = cold; pull("c", cold) }, []string{"c cold"}},
			{"bytes from the source again", func() { get(cold) }, []string{"c cold"}},
			{"many at once", func() {
				tags["v7"] = a
				head("v7")
				var all sync.WaitGroup
				for range 50 {
					all.Go(func() { pull("v7", a) })
				}
				all.Wait()
			}, []string{"v7 a"}},
			{"after a restart", func() { m = start(dst); pull("v1", a); pull("v1", a) }, []string{"v1 a"}},
			{"cache only", func() { m = start(nil); pull("v1", a); pull("c", cold) }, nil},
		} {
			got = nil
			step.do()
			if diff := cmp.Diff(step.want, got); diff != "" {
				t.Errorf("%s: missed (-want +got):\n%s", step.name, diff)
			}
		}
	})
}

// naming is a source with tags of its own.
type naming struct {
	registry.Reader
	tags map[string]registrytest.Node
	down bool
}

func (n *naming) Resolve(_ context.Context, _, tag string) (registry.Descriptor, error) {
	node, ok := n.tags[tag]
	switch {
	case n.down:
		return registry.Descriptor{}, registry.Errorf(registry.Unavailable, "down")
	case !ok:
		return registry.Descriptor{}, registry.Errorf(registry.NotFound, "no tag %s", tag)
	}
	return node.Desc, nil
}
