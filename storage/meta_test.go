package storage

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// A link that was asked for is in memory, and goes with what makes it void: an eviction, a purge, another descriptor.
func TestRecentLinks(t *testing.T) {
	m, err := openMeta(filepath.Join(t.TempDir(), "meta.db"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	d := digest.FromString("content")
	one, two := place{"m", "one", registry.Manifest}, place{"m", "two", registry.Manifest}
	want := func(when string, p place, size int64) {
		t.Helper()
		for range 2 { // from the file or its batch, and from memory
			if l, ok := m.link(p, d); ok != (size > 0) || l.Size != max(size, 0) {
				t.Fatalf("%s: link of %s is %+v, %v, want size %d", when, p.repo, l, ok, size)
			}
		}
	}
	link := func(p place, size int64) { m.putLink(p, registry.Descriptor{Digest: d, Size: size}) }
	want("at first", one, -1)
	link(one, 5)
	want("once linked", one, 5)
	want("once the other is linked", two, -1)
	link(two, 6)
	want("once both are linked", one, 5)
	want("once both are linked", two, 6)
	link(one, 7)
	want("linked again", one, 7)
	if err := m.flush(); err != nil {
		t.Fatal(err)
	}
	want("flushed", one, 7)
	if err := m.dropLinksOf("\x00m\x00one"); err != nil {
		t.Fatal(err)
	}
	want("purged", one, -1)
	want("the other purged", two, 6)
	m.drop(d)
	want("evicted", two, -1)
	if err := m.flush(); err != nil {
		t.Fatal(err)
	}
	want("evicted and flushed", two, -1)
}
