package storage_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// counters returns the store's metrics without labels, by name.
func counters(t *testing.T, s *storage.Store) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s.Collectors()...)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.Metric {
			if len(m.Label) == 0 {
				values[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return values
}

// diskUse is the bytes of all files of content.
func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	for _, sub := range []string{"blobs", "fills", "tmp"} {
		err := filepath.WalkDir(filepath.Join(dir, sub), func(_ string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil && filepath.Ext(e.Name()) != ".map" {
				n += info.Size()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func TestEviction(t *testing.T) {
	const size, limit = 100000, 350000 // three fit
	m := mem.New()
	up := registrytest.NewFaulty(m)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir, Size: limit})
	r := s.Over("m", up)
	var objects []registry.Object
	var bodies [][]byte
	for i := range 5 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), size))
		put(t, m, "app", b)
		objects, bodies = append(objects, registry.Object{Repo: "app", Digest: b.Desc.Digest}), append(bodies, b.Body)
	}
	settle := func(i int) { // read it until it is on the disk
		for {
			c, err := r.Open(t.Context(), objects[i], registry.Whole)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			c.Close()
			if err != nil || !bytes.Equal(got, bodies[i]) {
				t.Fatalf("read %d: %d bytes, %v", i, len(got), err)
			}
			if c.From == r {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	settle(0)
	open, err := r.Open(t.Context(), objects[0], registry.Whole) // oldest, but open
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		settle(i)
		if n := diskUse(t, dir); n > limit {
			t.Errorf("%d bytes on the disk, limit %d", n, limit)
		}
	}
	if got, err := io.ReadAll(open); err != nil || !bytes.Equal(got, bodies[0]) {
		t.Errorf("reader of the oldest: %d bytes, %v", len(got), err)
	}
	if n := up.Count("open"); n != 5 {
		t.Errorf("%d upstream opens, want 5", n)
	}
	settle(0) // was pinned
	if n := up.Count("open"); n != 5 {
		t.Errorf("an open object was evicted: %d upstream opens", n)
	}
	settle(1) // was not
	if n := up.Count("open"); n != 6 {
		t.Errorf("%d upstream opens, want 6", n)
	}
	open.Close()
	got := counters(t, s)
	if got["ecr_mirror_evictions_total"] != 3 || got["ecr_mirror_cache_used_bytes"] != 3*size || got["ecr_mirror_cache_limit_bytes"] != limit ||
		got["ecr_mirror_cache_filesystem_free_bytes"] <= 0 || got["ecr_mirror_cache_filesystem_size_bytes"] < got["ecr_mirror_cache_filesystem_free_bytes"] {
		t.Errorf("metrics: %v", got)
	}
	s.Close()
	s = openStore(t, storage.Options{Path: dir, Size: limit})
	if got := counters(t, s)["ecr_mirror_cache_used_bytes"]; got != 3*size {
		t.Errorf("%v bytes booked after a restart, want %d", got, 3*size)
	}
}

// TestEvictionTakesTheRight shows that an evicted object's links go with it.
func TestEvictionTakesTheRight(t *testing.T) {
	m := mem.New()
	body := registrytest.NewBlob("", registrytest.Bytes(1, 100000))
	other := registrytest.NewBlob("", registrytest.Bytes(2, 100000))
	put(t, m, "mine", body)
	put(t, m, "mine", other)
	mine, stranger := registrytest.NewFaulty(m), registrytest.NewFaulty(mem.New())
	put(t, m, "theirs", body)
	s := openStore(t, storage.Options{Size: 150000})
	o, theirs := registry.Object{Repo: "mine", Digest: body.Desc.Digest}, registry.Object{Repo: "theirs", Digest: body.Desc.Digest}
	r := s.Over("a", mine)
	wantBytes(t, r, o, registry.Whole, body.Body)
	wantBytes(t, r, registry.Object{Repo: "mine", Digest: other.Desc.Digest}, registry.Whole, other.Body)
	wantBytes(t, s.Over("b", m), theirs, registry.Whole, body.Body) // back, by another place
	if _, err := s.Over("a", stranger).Stat(t.Context(), o); !errors.Is(err, registry.NotFound) {
		t.Errorf("stat of what was evicted: %v, want not found", err)
	}
}

func TestLargerThanTheCache(t *testing.T) {
	const size = 300000
	up, _, o, body := upstream(t, size)
	s := openStore(t, storage.Options{Size: size - 1})
	r := s.Over("m", up)
	for range 3 {
		wantBytes(t, r, o, registry.Whole, body)
	}
	wantBytes(t, r, o, registry.Range{Offset: 10, Length: 20}, body[10:30])
	if got := counters(t, s)["ecr_mirror_uncached_reads_total"]; got != 4 {
		t.Errorf("%v uncached reads, want 4", got)
	}
	up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 5, Corrupt: true} }
	if got, err := read(t.Context(), r, o, registry.Whole); !errors.Is(err, registry.Corrupt) || len(got) > size-64<<10 {
		t.Errorf("corrupt: %d bytes, %v", len(got), err)
	}
}

func TestDiskFull(t *testing.T) {
	const size = 3 << 20
	up, _, o, body := upstream(t, size)
	s := openStore(t, storage.Options{})
	var mu sync.Mutex
	room, opened := 1<<20, make(chan struct{})
	s.SetWrite(func(f *os.File, p []byte, at int64) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if room -= len(p); room < 0 {
			<-opened // else the fill may be over before anybody follows it
			return 0, &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
		}
		return f.WriteAt(p, at)
	})
	r := s.Over("m", up)
	c, err := r.Open(t.Context(), o, registry.Whole)
	close(opened)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	c.Close()
	if registry.ClassOf(err) != registry.Unavailable || len(got) > 1<<20 || !bytes.Equal(got, body[:len(got)]) {
		t.Errorf("read while the disk fills up: %d bytes, %v", len(got), err)
	}
	at := int64(len(got))
	wantBytes(t, r, o, registry.Range{Offset: at, Length: -1}, body[at:]) // as a client continues
	wantBytes(t, r, o, registry.Whole, body)
	if n := counters(t, s)["ecr_mirror_cache_used_bytes"]; n != 0 {
		t.Errorf("%v bytes booked", n)
	}
}

func TestFreePercent(t *testing.T) {
	up, _, o, body := upstream(t, 1000)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir, FreePercent: 100})
	wantBytes(t, s.Over("m", up), o, registry.Whole, body)
	if n := diskUse(t, dir); n != 0 {
		t.Errorf("%d bytes on a disk that is to stay free", n)
	}
}
