package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// TestEvictionUnderReaders has readers of three times as much as there is room for, all at once: whole and in ranges, some
// leaving early. Everybody gets the right bytes, and in the end what is booked is what is on the disk.
func TestEvictionUnderReaders(t *testing.T) {
	m := mem.New()
	var blobs []registrytest.Blob
	for i := range 12 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 100_000+1000*i))
		blobs = append(blobs, b)
		if err := m.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	s, err := Open(Options{Path: dir, Size: 400_000})
	if err != nil {
		t.Fatal(err)
	}
	v := s.Over("m", m)
	one := func(rnd *rand.Rand) error {
		b := blobs[rnd.IntN(len(blobs))]
		r := registry.Whole
		if rnd.IntN(2) == 0 {
			r = registry.Range{Offset: rnd.Int64N(b.Desc.Size), Length: 1 + rnd.Int64N(b.Desc.Size)}
		}
		c, err := v.Open(t.Context(), registry.Object{Repo: "app", Digest: b.Desc.Digest}, r)
		if err != nil {
			return err
		}
		defer c.Close()
		if rnd.IntN(4) == 0 { // leaves
			return nil
		}
		got, err := io.ReadAll(c)
		r, _ = r.Clip(b.Desc.Size)
		if err == nil && !bytes.Equal(got, b.Body[r.Offset:r.Offset+r.Length]) {
			err = fmt.Errorf("%v of %s: wrong bytes", r, b.Desc.Digest)
		}
		return err
	}
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			for rnd := rand.New(rand.NewPCG(uint64(i), 1)); rnd.IntN(40) > 0; {
				if err := one(rnd); err != nil {
					t.Error(err)
				}
				s.mu.Lock()
				if s.space.used > s.space.limit {
					t.Errorf("%d bytes booked, limit %d", s.space.used, s.space.limit)
				}
				s.mu.Unlock()
			}
		})
	}
	readers.Wait()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, s)
}

// wantSound looks at a store that has been closed: nobody reads, what is booked is on the disk, and fsck finds nothing.
func wantSound(t *testing.T, s *Store) {
	t.Helper()
	onDisk, err := contentOn(s.root)
	if err != nil {
		t.Fatal(err)
	}
	if s.space.used != onDisk {
		t.Errorf("%d bytes booked, %d on the disk", s.space.used, onDisk)
	}
	for it := s.space.ring.next; it != &s.space.ring; it = it.next {
		if it.pins != 0 {
			t.Errorf("%v: %d pins", it.key, it.pins)
		}
	}
	report, err := Check(t.Context(), CheckOptions{Path: s.root, Problem: func(p Problem) { t.Errorf("fsck: %+v", p) }})
	if err != nil || report.Leftover > 0 {
		t.Errorf("fsck: %+v, %v", report, err)
	}
}

// settle waits until nothing runs in the background. Nobody else uses the store.
func settle(s *Store) { s.work.Wait() }

// TestEvictedBetweenStatAndOpen has an object leave after somebody was told that it is here.
func TestEvictedBetweenStatAndOpen(t *testing.T) {
	m := mem.New()
	up := registrytest.NewFaulty(m)
	s, err := Open(Options{Path: t.TempDir(), Size: 1500})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := s.Over("m", up)
	var objects []registry.Object
	for i := range 2 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 1000))
		if err := m.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, registry.Object{Repo: "app", Digest: b.Desc.Digest})
	}
	for i, o := range []registry.Object{objects[0], objects[1], objects[0]} {
		c, err := v.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || registry.VerifyBytes(got, o.Digest) != nil {
			t.Fatalf("read %d: %d bytes, %v", i, len(got), err)
		}
		settle(s)
		if i == 0 {
			if d, err := v.Stat(t.Context(), o); err != nil || d.Size != 1000 || up.Count("stat") != 0 {
				t.Fatalf("stat: %v, %v, %q", d, err, up.Calls())
			}
		}
	}
	if n := up.Count("open"); n != 3 {
		t.Errorf("%d upstream opens, want 3", n)
	}
}

// evicting is an upstream that says an object is there while the store lets go of it, and then does not send it.
type evicting struct {
	registry.Reader
	s *Store
}

func (e evicting) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	e.s.evict(0)
	return e.Reader.Stat(ctx, o)
}

func (e evicting) Open(context.Context, registry.Object, registry.Range) (*registry.Content, error) {
	return nil, registry.Errorf(registry.Denied, "no more")
}

// TestEvictedBeforeItsLink has an object leave while another repository asks for the right to read it: the right goes, too.
func TestEvictedBeforeItsLink(t *testing.T) {
	m := mem.New()
	b := registrytest.NewBlob("", registrytest.Bytes(1, 1000))
	for _, repo := range []string{"one", "two"} {
		if err := m.PutBlob(t.Context(), repo, b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(Options{Path: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one, two := registry.Object{Repo: "one", Digest: b.Desc.Digest}, registry.Object{Repo: "two", Digest: b.Desc.Digest}
	bring := func() {
		c, err := s.Over("m", m).Open(t.Context(), one, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, c)
		c.Close()
		settle(s)
	}
	bring()
	if _, err := s.Over("m", evicting{m, s}).Open(t.Context(), two, registry.Whole); registry.ClassOf(err) != registry.Denied {
		t.Errorf("open of what was evicted: %v", err)
	}
	bring()
	if !s.Has("m", one) || s.Has("m", two) {
		t.Errorf("one has it: %v; two: %v, want only one", s.Has("m", one), s.Has("m", two))
	}
}

// TestSmallerLimit starts with more than there is room for now: what was used longest ago leaves, a part at a time.
func TestSmallerLimit(t *testing.T) {
	m := mem.New()
	dir := t.TempDir()
	s, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	const n = 250
	var last registry.Object
	for i := range n {
		b := registrytest.NewBlob("application/json", registrytest.Bytes(uint64(i), 100))
		if err := s.keep(place{"m", "app", registry.Manifest}, answer{b.Desc, b.Body, m}); err != nil {
			t.Fatal(err)
		}
		last = registry.Object{Repo: "app", Kind: registry.Manifest, Digest: b.Desc.Digest}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Path: dir, Size: 1000}); err != nil {
		t.Fatal(err)
	}
	if s.space.used != n*100 {
		t.Errorf("%d bytes found", s.space.used)
	}
	s.makeRoom()
	if s.space.used != 900 || !s.Has("m", last) {
		t.Errorf("%d bytes stay, the last used: %v", s.space.used, s.Has("m", last))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantSound(t, s)
}
