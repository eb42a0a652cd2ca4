package storage_test

import (
	"fmt"
	"io"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// BenchmarkFill reads a cold blob of 64 MiB, commits included.
func BenchmarkFill(b *testing.B) {
	const size = 64 << 20
	up, m, _, body := upstream(b, size)
	s := openStore(b, storage.Options{Size: 8 * size})
	r := s.Over("m", up)
	b.SetBytes(size)
	for i := range b.N {
		b.StopTimer()
		copy(body, fmt.Sprint(i)) // other content under another digest
		blob := registrytest.NewBlob("", body)
		put(b, m, fmt.Sprint("b", i), blob)
		b.StartTimer()
		drain(b, r, registry.Object{Repo: fmt.Sprint("b", i), Digest: blob.Desc.Digest})
	}
	s.Close()
}

// BenchmarkHotOpen opens, reads and closes a blob of 4 KiB that is on the disk.
func BenchmarkHotOpen(b *testing.B) {
	up, _, o, _ := upstream(b, 4096)
	r := openStore(b, storage.Options{}).Over("m", up)
	drain(b, r, o)
	b.ReportAllocs()
	for b.Loop() {
		drain(b, r, o)
	}
}

func drain(b *testing.B, r registry.Reader, o registry.Object) {
	b.Helper()
	c, err := r.Open(b.Context(), o, registry.Whole)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); err != nil {
		b.Fatal(err)
	}
	c.Close()
}
