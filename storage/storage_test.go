package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openStore opens a store that is closed with the test.
func openStore(t testing.TB, o storage.Options) *storage.Store {
	t.Helper()
	if o.Path == "" {
		o.Path = t.TempDir()
	}
	s, err := storage.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// upstream is a memory registry with one blob in repository "app", behind a recorder.
func upstream(t testing.TB, size int) (*registrytest.Faulty, *mem.Registry, registry.Object, []byte) {
	t.Helper()
	m := mem.New()
	b := registrytest.NewBlob("application/octet-stream", registrytest.Bytes(uint64(size), size))
	put(t, m, "app", b)
	return registrytest.NewFaulty(m), m, registry.Object{Repo: "app", Digest: b.Desc.Digest}, b.Body
}

func put(t testing.TB, w registry.Writer, repo string, b registrytest.Blob) {
	t.Helper()
	if err := w.PutBlob(t.Context(), repo, b.Desc, bytes.NewReader(b.Body)); err != nil {
		t.Fatal(err)
	}
}

func read(ctx context.Context, r registry.Reader, o registry.Object, rg registry.Range) ([]byte, error) {
	c, err := r.Open(ctx, o, rg)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return io.ReadAll(c)
}

func wantBytes(t testing.TB, r registry.Reader, o registry.Object, rg registry.Range, want []byte) {
	t.Helper()
	got, err := read(t.Context(), r, o, rg)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %v %v: %d bytes, %v; want %d bytes", o, rg, len(got), err, len(want))
	}
}

func wantCalls(t testing.TB, up *registrytest.Faulty, opens, stats int) {
	t.Helper()
	if up.Count("open") != opens || up.Count("stat") != stats {
		t.Errorf("upstream calls: %q; want %d opens and %d stats", up.Calls(), opens, stats)
	}
}

// wantOnce checks that upstream was asked for every byte of size once, and for nothing else.
func wantOnce(t testing.TB, up *registrytest.Faulty, size int64) {
	t.Helper()
	if calls := up.Calls(); asked(t, calls, 0, size) != size {
		t.Errorf("upstream calls: %q; want each of %d bytes once", calls, size)
	}
}

// asked is how many bytes of size calls, all of them opens of closed ranges, ask for, none twice and none before from.
func asked(t testing.TB, calls []string, from, size int64) (sum int64) {
	t.Helper()
	var runs []registry.Range
	for _, c := range calls {
		var r registry.Range
		_, err := fmt.Sscanf(c[strings.LastIndexByte(c, ' ')+1:], "%d+%d", &r.Offset, &r.Length)
		overlaps := func(o registry.Range) bool { return r.Offset < o.Offset+o.Length && o.Offset < r.Offset+r.Length }
		if err != nil || !strings.HasPrefix(c, "open ") || r.Offset < from || slices.ContainsFunc(runs, overlaps) {
			t.Errorf("upstream calls: %q; want closed ranges, no byte twice", calls)
		}
		runs = append(runs, r)
		sum += min(r.Length, size-r.Offset)
	}
	return sum
}

// meter counts the bytes that a registry gives out.
type meter struct {
	registry.Reader
	n atomic.Int64
}

func (m *meter) String() string { return "meter" }

func (m *meter) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := m.Reader.Open(ctx, o, r)
	if err == nil {
		c.ReadCloser = &metered{c.ReadCloser, m}
	}
	return c, err
}

type metered struct {
	io.ReadCloser
	m *meter
}

func (b *metered) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.m.n.Add(int64(n))
	return n, err
}

func TestSuite(t *testing.T) {
	cold := func(t *testing.T) registrytest.Subject {
		m := mem.New()
		s := openStore(t, storage.Options{})
		return registrytest.Subject{Reader: s.Over("m", m), Writer: m, ReadOnly: true, EmptyBlobs: true}
	}
	t.Run("cached", func(t *testing.T) { registrytest.Run(t, cold) })
	t.Run("uncached", func(t *testing.T) {
		registrytest.Run(t, func(t *testing.T) registrytest.Subject {
			m := mem.New()
			s := openStore(t, storage.Options{Size: 1})
			return registrytest.Subject{Reader: s.Over("m", m), Writer: m, ReadOnly: true, EmptyBlobs: true}
		})
	})
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	openStore(t, storage.Options{Path: dir})
	file := filepath.Join(dir, "meta.db")
	for name, path := range map[string]string{
		"no path":      "",
		"below a file": filepath.Join(file, "store"),
		"a file":       file,
		"not writable": "/proc/self/store",
		"in use":       dir,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := storage.Open(storage.Options{Path: path, LockWait: 1})
			if err == nil {
				s.Close()
				t.Fatal("want an error")
			}
			t.Log(err)
		})
	}
}

func TestHot(t *testing.T) {
	up, _, o, body := upstream(t, 1<<20)
	s := openStore(t, storage.Options{})
	r := s.Over("m", registry.Named("source", up))
	for i, want := range []string{"source", "local", "local"} {
		var tr registry.Trace
		got, err := read(registry.WithTrace(t.Context(), &tr), r, o, registry.Whole)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("read %d: %d bytes, %v", i, len(got), err)
		}
		if i > 0 && tr.Tier() == "source" { // the commit may still run
			want = "source"
		}
		if tr.Tier() != want {
			t.Errorf("read %d: tier %q, want %q", i, tr.Tier(), want)
		}
	}
	wantBytes(t, r, o, registry.Range{Offset: 5, Length: 10}, body[5:15])
	wantBytes(t, r, o, registry.Range{Offset: 1<<20 - 5, Length: 10}, body[1<<20-5:])
	wantCalls(t, up, 1, 0)
	if d, err := r.Stat(t.Context(), o); err != nil || d.Size != 1<<20 {
		t.Errorf("stat: %v, %v", d, err)
	}
	if _, err := r.Open(t.Context(), o, registry.Range{Offset: 1 << 20, Length: -1}); !errors.Is(err, registry.Invalid) {
		t.Errorf("range past the end: %v, want invalid", err)
	}
	wantCalls(t, up, 1, 0)
}
