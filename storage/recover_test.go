package storage

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// TestRecoverObjects starts with every combination of a file and its rows. Only what has a row is booked without a look at
// the file.
func TestRecoverObjects(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	p := place{"m", "app", registry.Blob}
	object := func(name string, size int) digest.Digest {
		d := digest.SHA512.FromString(name)
		if size >= 0 {
			path := s.blobPath(d)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	linked := func(d digest.Digest, size int64) digest.Digest {
		s.meta.putLink(p, registry.Descriptor{Digest: d, Size: size})
		return d
	}
	whole, lost, found := linked(object("whole", 10), 10), linked(object("lost", -1), 10), object("found", 20)
	resized, odd := linked(object("resized", 5), 40), linked(object("odd", 80), 80)
	stranger := filepath.Join(filepath.Dir(s.blobPath(whole)), "stranger")
	if err := os.WriteFile(stranger, make([]byte, 160), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.meta.flush(); err != nil {
		t.Fatal(err)
	}
	if err := s.meta.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketObjects)).Put([]byte(odd), []byte("?"))
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	if s, err = Open(Options{Path: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sizes := make(map[digest.Digest]int64)
	for d, it := range s.space.complete {
		sizes[d] = it.size
	}
	for d, want := range map[digest.Digest]int64{whole: 10, found: 20, resized: 40, odd: 80} {
		if sizes[d] != want {
			t.Errorf("%s is booked with %d bytes, want %d", d, sizes[d], want)
		}
	}
	if len(sizes) != 4 || s.space.used != 150 {
		t.Errorf("booked: %d bytes in %v", s.space.used, sizes)
	}
	for d, want := range map[digest.Digest]bool{whole: true, lost: false, found: false, resized: true, odd: true} {
		if _, ok := s.meta.link(p, d); ok != want {
			t.Errorf("link to %s: %v, want %v", d, ok, want)
		}
	}
	if _, err := os.Stat(stranger); err != nil {
		t.Error("somebody else's file:", err)
	}
}
