package storage_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func TestRestartKeepsContent(t *testing.T) {
	up, m, o, body := upstream(t, 3<<20)
	img := registrytest.Image(1, 1000)
	registrytest.Push(t, m, "app", "v1", img)
	manifest := registry.Object{Repo: "app", Kind: registry.Manifest, Digest: img.Desc.Digest}
	dir := t.TempDir()
	at := time.Unix(1700000000, 0).UTC()

	s := openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, body)
	wantBytes(t, s.Over("m", up), manifest, registry.Whole, img.Body)
	if err := s.Tags("m").Save("app", "v1", img.Desc, at); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	up.Forget()

	s = openStore(t, storage.Options{Path: dir})
	r := s.Over("m", up)
	wantBytes(t, r, o, registry.Whole, body)
	wantBytes(t, r, manifest, registry.Whole, img.Body)
	d, err := r.Stat(t.Context(), manifest)
	if err != nil || d.MediaType != img.Desc.MediaType || d.Size != img.Desc.Size {
		t.Errorf("stat: %v, %v; want %v", d, err, img.Desc)
	}
	d, saved, ok := s.Tags("m").Load("app", "v1")
	if diff := cmp.Diff(img.Desc, d); !ok || !saved.Equal(at) || diff != "" {
		t.Errorf("tag: %v, %v (-want +got):\n%s", ok, saved, diff)
	}
	if _, _, ok := s.Tags("other").Load("app", "v1"); ok {
		t.Error("another namespace has the tag")
	}
	if err := s.Tags("m").Delete("app", "v1"); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := s.Tags("m").Load("app", "v1"); ok {
		t.Error("the tag is still there after Delete")
	}
	if calls := up.Calls(); len(calls) != 0 {
		t.Errorf("upstream calls after the restart: %q", calls)
	}
}

// halfFill returns a directory with a fill that is stopped at byte at, closed properly or copied as kill -9 leaves it.
func halfFill(t *testing.T, up *registrytest.Faulty, o registry.Object, at int64, kill bool) string {
	t.Helper()
	hold := make(chan struct{})
	up.Body = func(c registrytest.Call) *registrytest.Fault {
		return &registrytest.Fault{At: max(0, at-c.Range.Offset), Stall: hold}
	}
	s := openStore(t, storage.Options{})
	dir := t.TempDir()
	s.Close()
	s = openStore(t, storage.Options{Path: dir})
	c, err := s.Over("m", up).Open(t.Context(), o, registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.CopyN(io.Discard, c, at); err != nil {
		t.Fatal(err)
	}
	if kill {
		fills, err := filepath.Glob(filepath.Join(dir, "fills", "*.map"))
		if err != nil || len(fills) != 1 {
			t.Fatalf("fills: %v, %v", fills, err)
		}
		for marks := []byte(nil); len(marks) < 257 || marks[256] == 0; { // until the first fsync in the background
			time.Sleep(time.Millisecond)
			if marks, err = os.ReadFile(fills[0]); err != nil {
				t.Fatal(err)
			}
		}
		copied := filepath.Join(t.TempDir(), "killed")
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		dir = copied
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	close(hold)
	up.Body = nil
	up.Forget()
	return dir
}

func TestInterruptedFillContinues(t *testing.T) {
	const size = 12<<20 + 5
	for _, kill := range []bool{false, true} {
		up, _, o, body := upstream(t, size)
		dir := halfFill(t, up, o, 9<<20+100, kill)
		s := openStore(t, storage.Options{Path: dir})
		wantBytes(t, s.Over("m", up), o, registry.Whole, body)
		calls := up.Calls()
		n, least := asked(t, calls, 0, size), int64(size-9<<20)
		if n < least || !kill && n > least || kill && n > least+5<<20 { // killed: as far as the last fsync
			t.Errorf("kill %v: asked for %d bytes: %q", kill, n, calls)
		}
	}
}

// TestInterruptedFillIsNotShared shows that what an interrupted fill left is given out only once the reader's own upstream
// has answered.
func TestInterruptedFillIsNotShared(t *testing.T) {
	up, _, o, _ := upstream(t, 3<<20)
	dir := halfFill(t, up, o, 2<<20, false)
	s := openStore(t, storage.Options{Path: dir})
	other := registry.Object{Repo: "other", Digest: o.Digest}
	if _, err := s.Over("m", up).Open(t.Context(), other, registry.Range{Offset: 0, Length: 5}); registry.ClassOf(err) != registry.NotFound {
		t.Errorf("open in another repository: %v, want not found", err)
	}
}

// TestDamagedFill damages what an interrupted fill left: no reader gets a complete body of it, and upstream is asked once
// more, from the start.
func TestDamagedFill(t *testing.T) {
	const size = 3 << 20
	for name, damage := range map[string]func(data, marks string) error{
		"data":         func(data, _ string) error { return overwrite(data, 5, []byte{1, 2, 3}) },
		"size":         func(data, _ string) error { return os.Truncate(data, 1<<20) },
		"map":          func(_, marks string) error { return overwrite(marks, 20, []byte{9}) },
		"map is gone":  func(_, marks string) error { return os.Remove(marks) },
		"data is gone": func(data, _ string) error { return os.Remove(data) },
		"map is short": func(_, marks string) error { return os.Truncate(marks, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			up, _, o, body := upstream(t, size)
			dir := halfFill(t, up, o, 2<<20, false)
			base := filepath.Join(dir, "fills", o.Digest.Algorithm().String()+"-"+o.Digest.Encoded())
			if err := damage(base+".data", base+".map"); err != nil {
				t.Fatal(err)
			}
			s := openStore(t, storage.Options{Path: dir})
			r := s.Over("m", up)
			if got, err := read(t.Context(), r, o, registry.Whole); err == nil && !bytes.Equal(got, body) {
				t.Fatalf("a complete body of %d wrong bytes", len(got))
			} else if name != "data" && err != nil {
				t.Errorf("read: %v", err)
			} else if name == "data" && registry.ClassOf(err) != registry.Unavailable {
				t.Errorf("read: %v; want unavailable, for upstream is not to blame", err)
			}
			wantBytes(t, r, o, registry.Whole, body)
			calls := up.Calls()
			if name == "data" {
				calls = calls[1:] // what was missing
			}
			if n := asked(t, calls, 0, size); n != size {
				t.Errorf("upstream calls: %q", calls)
			}
		})
	}
}

// TestDamageIsKnown shows that a reader gets nothing more of an interrupted fill once its bytes turned out wrong.
func TestDamageIsKnown(t *testing.T) {
	const size = 3 << 20
	up, _, o, body := upstream(t, size)
	dir := halfFill(t, up, o, 2<<20, false)
	base := filepath.Join(dir, "fills", o.Digest.Algorithm().String()+"-"+o.Digest.Encoded())
	if err := overwrite(base+".data", 1<<19, []byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	r := openStore(t, storage.Options{Path: dir}).Over("m", up)
	c, err := r.Open(t.Context(), o, registry.Range{Length: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := read(t.Context(), r, o, registry.Whole); err != nil && registry.ClassOf(err) != registry.Unavailable {
		t.Error(err)
	}
	wantBytes(t, r, o, registry.Whole, body)
	if got, err := io.ReadAll(c); registry.ClassOf(err) != registry.Unavailable || err == nil {
		t.Errorf("a range with %d bytes of a damaged fill: %v", len(got), err)
	}
}

func overwrite(path string, at int64, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(b, at)
	return err
}

// TestObjectLostOrFound tests the two crashes between a rename and its rows, and a disk that somebody tidied.
func TestObjectLostOrFound(t *testing.T) {
	up, _, o, body := upstream(t, 100000)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, body)
	s.Close()
	if err := os.Remove(filepath.Join(dir, "meta.db")); err != nil {
		t.Fatal(err)
	}
	up.Forget()
	s = openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("m", up), o, registry.Whole, body)
	wantCalls(t, up, 0, 1) // linked again, not transferred
	blob := filepath.Join(dir, "blobs", "sha256", o.Digest.Encoded()[:2], o.Digest.Encoded())
	for _, tidy := range []func() error{
		func() error { return os.Remove(blob) },
		func() error { return os.Truncate(blob, 10) },
	} {
		s.Close() // the commit is done
		s = openStore(t, storage.Options{Path: dir})
		if err := tidy(); err != nil {
			t.Fatal(err)
		}
		up.Forget()
		wantBytes(t, s.Over("m", up), o, registry.Whole, body)
		wantCalls(t, up, 1, 0)
	}
}

// TestLinkOfEvictedObject shows that a crash between an eviction and the loss of its links does not bring the links back when
// somebody else brings the content.
func TestLinkOfEvictedObject(t *testing.T) {
	up, m, o, body := upstream(t, 100000)
	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("a", up), o, registry.Whole, body)
	s.Close()
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", o.Digest.Encoded()[:2], o.Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, storage.Options{Path: dir})
	wantBytes(t, s.Over("b", m), o, registry.Whole, body)
	for !s.Has("b", o) { // until it is committed
		time.Sleep(time.Millisecond)
	}
	stranger := registrytest.NewFaulty(mem.New())
	if _, err := read(t.Context(), s.Over("a", stranger), o, registry.Whole); !errors.Is(err, registry.NotFound) {
		t.Errorf("after the content came back: %v, want not found", err)
	}
	wantCalls(t, stranger, 0, 1)
}
