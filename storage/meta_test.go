package storage

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

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

// To forget a tag of which nothing is known writes nothing: clients ask for many tags that are nowhere.
func TestForgetUnknownTag(t *testing.T) {
	s, err := Open(Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	writes, update := 0, s.meta.update
	s.meta.update = func(f func(*bbolt.Tx) error) error { writes++; return update(f) }
	forget := func(want int) {
		t.Helper()
		if err := s.Tags("m").Delete("app", "v1"); err != nil {
			t.Fatal(err)
		}
		settle(s)
		if writes != want {
			t.Errorf("%d transactions, want %d", writes, want)
		}
	}
	forget(0)
	if err := s.Tags("m").Save("app", "v1", registry.Descriptor{Digest: digest.FromString("x")}, time.Now()); err != nil {
		t.Fatal(err)
	}
	settle(s)
	forget(2) // one was the Save's
	forget(2)
}
