package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

// faulted is a store in front of a registry with an image of one layer.
type faulted struct {
	t        *testing.T
	dir      string
	s        *Store
	up       *registrytest.Faulty
	manifest registry.Object
	layer    registry.Object
}

func newFaulted(t *testing.T) *faulted {
	t.Helper()
	m := mem.New()
	img := registrytest.Image(1, 200_000)
	registrytest.Push(t, m, "app", "v1", img)
	f := &faulted{t: t, dir: memoryDir(t), up: registrytest.NewFaulty(m),
		manifest: registry.Object{Repo: "app", Kind: registry.Manifest, Digest: img.Desc.Digest},
		layer:    registry.Object{Repo: "app", Digest: img.Blobs[len(img.Blobs)-1].Desc.Digest}}
	f.open(f.dir)
	t.Cleanup(func() { f.s.Close() })
	return f
}

// open starts a store on dir, in place of the one that runs.
func (f *faulted) open(dir string) {
	f.t.Helper()
	s, err := Open(Options{Path: dir})
	if err != nil {
		f.t.Fatal(err)
	}
	f.dir, f.s = dir, s
}

// reads reads all of o, and returns how often upstream was asked meanwhile.
func (f *faulted) reads(o registry.Object) (opens int) {
	f.t.Helper()
	f.up.Forget()
	c, err := f.s.Over("m", f.up).Open(f.t.Context(), o, registry.Whole)
	if err != nil {
		f.t.Fatalf("open %v: %v", o, err)
	}
	b, err := io.ReadAll(c)
	c.Close()
	if err != nil || registry.VerifyBytes(b, o.Digest) != nil {
		f.t.Fatalf("read %v: %d bytes, %v", o, len(b), err)
	}
	settle(f.s)
	return f.up.Count("open")
}

// recovers lets so much time pass that the store tries its disk again.
func (f *faulted) recovers() {
	f.s.mu.Lock()
	f.s.troubleUntil = time.Now()
	f.s.mu.Unlock()
}

// wantBooked compares the books with the disk while nothing is written.
func (f *faulted) wantBooked(what string) {
	f.t.Helper()
	onDisk, err := contentOn(f.dir)
	f.s.mu.Lock()
	used := f.s.space.used
	f.s.mu.Unlock()
	if err != nil || used != onDisk {
		f.t.Errorf("%s: %d bytes booked, %d on the disk, %v", what, used, onDisk, err)
	}
}

// fault makes the nth of several calls fail, or fail after it took effect.
type fault struct {
	at    int
	after bool
	err   error
	calls int
}

func (f *fault) do(call func() error) error {
	f.calls++
	if f.calls != f.at {
		return call()
	}
	if f.after {
		if err := call(); err != nil {
			return err
		}
	}
	return f.err
}

func (f *fault) String() string { return fmt.Sprintf("call %d, after %v, %v", f.at, f.after, f.err) }

// faults are all of n calls, before and after their effect, with each error.
func faults(n int, errs ...error) (all []*fault) {
	for _, err := range errs {
		for at := 1; at <= n; at++ {
			all = append(all, &fault{at: at, err: err}, &fault{at: at, err: err, after: true})
		}
	}
	return all
}

// publishing is durable.Publish, step by step.
func publishing(step func(func() error) error) func(*os.File, string) error {
	return func(f *os.File, path string) error {
		for _, call := range []func() error{
			f.Sync,
			func() error { return os.Rename(f.Name(), path) },
			func() error { return durable.SyncDir(filepath.Dir(path)) },
		} {
			if err := step(call); err != nil {
				return err
			}
		}
		return nil
	}
}

// writing is durable.WriteFile, step by step.
func writing(step func(func() error) error) func(tmp, path string, data []byte, perm os.FileMode) error {
	return func(tmp, path string, data []byte, perm os.FileMode) error {
		defer os.Remove(tmp)
		if err := step(func() error { return os.WriteFile(tmp, data, perm) }); err != nil {
			return err
		}
		f, err := os.Open(tmp)
		if err != nil {
			return err
		}
		defer f.Close()
		return publishing(step)(f, path)
	}
}

// TestPublishFails has each step fail by which a blob gets its final name. Its readers get it all the same, nothing of it
// stays that is not booked, and it is cached when the disk is well again.
func TestPublishFails(t *testing.T) {
	for _, fault := range faults(3, syscall.EIO, syscall.ENOSPC) {
		t.Run(fault.String(), func(t *testing.T) {
			f := newFaulted(t)
			f.s.publish = publishing(fault.do)
			for range 2 {
				// Twice, if the reader comes too late to follow what failed.
				if n := f.reads(f.layer); n < 1 || n > 2 || fault.calls != fault.at {
					t.Errorf("%d opens, %d calls", n, fault.calls)
				}
				f.wantBooked("failed")
				if f.s.space.used != 0 {
					t.Errorf("%d bytes booked", f.s.space.used)
				}
			}
			f.recovers()
			f.reads(f.layer)
			if n := f.reads(f.layer); n != 0 {
				t.Errorf("%d opens of what is cached", n)
			}
			f.s.Close()
			wantSound(t, f.s)
		})
	}
}

// TestSyncFails has an fsync fail in mid-fill. Readers get the blob all the same, but it is not kept.
func TestSyncFails(t *testing.T) {
	f := newFaulted(t)
	write := f.s.write
	f.s.write = func(data *os.File, p []byte, at int64) (int, error) {
		f.s.mu.Lock()
		file := f.s.fills[f.layer.Digest].file
		f.s.mu.Unlock()
		file.mu.Lock()
		file.lost = true
		file.mu.Unlock()
		return write(data, p, at)
	}
	f.reads(f.layer)
	f.wantBooked("unsynced")
	if f.s.space.used != 0 {
		t.Errorf("%d bytes booked", f.s.space.used)
	}
	f.s.write = write
	f.recovers()
	f.reads(f.layer)
	if n := f.reads(f.layer); n != 0 {
		t.Errorf("%d opens of what is cached", n)
	}
}

// TestPark shows that a fill of which nobody wants more ends, whether or not the disk takes what it brought, and that a
// reader who comes just then looks again.
func TestPark(t *testing.T) {
	for _, lost := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			m := mem.New()
			img := registrytest.Image(1, 3<<20)
			registrytest.Push(t, m, "app", "v1", img)
			o := registry.Object{Repo: "app", Digest: img.Blobs[1].Desc.Digest}
			s, err := Open(Options{Path: t.TempDir()})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			c, err := s.Over("m", m).Open(t.Context(), o, registry.Range{Offset: 5, Length: 10})
			if err != nil {
				t.Fatal(err)
			}
			f := s.fills[o.Digest]
			f.file.mu.Lock()
			f.file.lost = lost
			f.file.mu.Unlock()
			c.Close()
			time.Sleep(2 * linger)
			synctest.Wait()
			s.mu.Lock()
			fills, used := len(s.fills), s.space.used
			s.mu.Unlock()
			if want := map[bool]int64{false: f.desc.Size}[lost]; fills != 0 || used != want {
				t.Errorf("lost %v: %d fills, %d bytes booked, want %d", lost, fills, used, want)
			}
			if _, err := f.reader(t.Context()); !errors.Is(err, errOvertaken) {
				t.Errorf("lost %v: reader of a parked fill: %v", lost, err)
			}
		})
	}
}

// TestManifestWriteFails is the same for a manifest.
func TestManifestWriteFails(t *testing.T) {
	for _, fault := range faults(4, syscall.ENOSPC) {
		t.Run(fault.String(), func(t *testing.T) {
			f := newFaulted(t)
			f.s.writeFile = writing(fault.do)
			if n := f.reads(f.manifest); n != 1 || fault.calls != fault.at {
				t.Errorf("%d opens, %d calls", n, fault.calls)
			}
			f.wantBooked("failed")
			if n := f.reads(f.manifest); n != 1 {
				t.Errorf("%d opens after it failed", n)
			}
			if n := f.reads(f.manifest); n != 0 {
				t.Errorf("%d opens of what is cached", n)
			}
			f.s.Close()
			wantSound(t, f.s)
		})
	}
}

// TestMetadataFails has the transaction of metadata fail, or fail after it was written, once or until the end: what was
// brought is served all the while, and after a restart there is at most one question upstream whether it may be.
func TestMetadataFails(t *testing.T) {
	for _, fault := range faults(1, syscall.EIO) {
		for _, always := range []bool{false, true} {
			t.Run(fmt.Sprint(fault, ", always ", always), func(t *testing.T) {
				f := newFaulted(t)
				fault.calls = 0
				f.s.meta.update = func(fn func(*bbolt.Tx) error) error {
					if always {
						fault.calls = 0
					}
					return fault.do(func() error { return f.s.meta.db.Update(fn) })
				}
				for i, want := range []int{1, 0} {
					if n := f.reads(f.layer); n != want {
						t.Errorf("read %d: %d opens", i, n)
					}
				}
				f.wantBooked("failed")
				if err := f.s.Close(); (err != nil) != always {
					t.Errorf("close: %v", err)
				}
				f.open(f.dir)
				f.wantBooked("after a restart")
				stats := 0
				if always && !fault.after {
					stats = 1
				}
				if n := f.reads(f.layer); n != 0 || f.up.Count("stat") != stats {
					t.Errorf("after a restart: %q", f.up.Calls())
				}
				f.s.Close()
				wantSound(t, f.s)
			})
		}
	}
}

// TestMetadataFull has no room for metadata: what nobody reads any more makes some, and the rows are written later.
func TestMetadataFull(t *testing.T) {
	for _, fault := range faults(1, syscall.ENOSPC) {
		f := newFaulted(t)
		f.s.meta.update = func(fn func(*bbolt.Tx) error) error {
			return fault.do(func() error { return f.s.meta.db.Update(fn) })
		}
		f.reads(f.manifest)
		f.s.mu.Lock()
		trouble := time.Now().Before(f.s.troubleUntil)
		f.s.mu.Unlock()
		if left := !f.s.Has("m", f.manifest); !left || !trouble {
			t.Errorf("%v: room was made %v, to be spared %v", fault, left, trouble)
		}
		f.wantBooked("full")
		if n := f.reads(f.layer); n != 1 || f.s.space.used != 0 {
			t.Errorf("%v: %d opens, %d bytes booked", fault, n, f.s.space.used)
		}
		f.s.Close()
		wantSound(t, f.s)
	}
}

// TestNoFillFile has no file made for a blob: it is read past the store.
func TestNoFillFile(t *testing.T) {
	f := newFaulted(t)
	fills := filepath.Join(f.dir, "fills")
	if err := errors.Join(os.Remove(fills), os.WriteFile(fills, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if n := f.reads(f.layer); n == 0 {
			t.Error("upstream was not asked")
		}
		f.wantBooked("no fills")
	}
	if err := errors.Join(os.Remove(fills), os.Mkdir(fills, 0o700)); err != nil {
		t.Fatal(err)
	}
	f.recovers()
	f.reads(f.layer)
	if n := f.reads(f.layer); n != 0 {
		t.Errorf("%d opens of what is cached", n)
	}
}

// TestNoObjectDirectory has the directory of an object not be made.
func TestNoObjectDirectory(t *testing.T) {
	f := newFaulted(t)
	blobs := filepath.Join(f.dir, "blobs", "sha256")
	if err := os.WriteFile(blobs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, o := range []registry.Object{f.layer, f.manifest} {
		f.reads(o)
		if f.s.space.used != 0 {
			t.Errorf("%d bytes booked", f.s.space.used)
		}
	}
	if err := os.Remove(blobs); err != nil {
		t.Fatal(err)
	}
	f.recovers()
	for _, o := range []registry.Object{f.layer, f.manifest} {
		f.reads(o)
		if n := f.reads(o); n != 0 {
			t.Errorf("%d opens of what is cached", n)
		}
	}
	f.s.Close()
	wantSound(t, f.s)
}

// TestNoTemporaryDirectory has somebody tidy up: what is evicted goes all the same.
func TestNoTemporaryDirectory(t *testing.T) {
	f := newFaulted(t)
	f.reads(f.layer)
	if err := os.Remove(filepath.Join(f.dir, "tmp")); err != nil {
		t.Fatal(err)
	}
	f.s.evict(0)
	f.wantBooked("evicted")
	if n := f.reads(f.layer); n != 1 {
		t.Errorf("%d opens of what was evicted", n)
	}
}

// TestFreeSpace has a filesystem that others fill up: 15 % of it stay free, whatever the cache's size.
func TestFreeSpace(t *testing.T) {
	m := mem.New()
	var objects []registry.Object
	for i := range 3 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 10_000))
		if err := m.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, registry.Object{Repo: "app", Digest: b.Desc.Digest})
	}
	s, err := Open(Options{Path: t.TempDir(), Size: 1 << 30, FreePercent: 15})
	if err != nil {
		t.Fatal(err)
	}
	f := &faulted{t: t, dir: s.root, s: s, up: registrytest.NewFaulty(m)}
	var others int64
	s.statfs = func(string) (total, free int64, err error) {
		used, err := contentOn(s.root)
		return 100_000, 100_000 - used - others, err
	}
	here := func(i int) bool { return s.Has("m", objects[i]) }

	others = 60_000 // 25000 for us
	f.reads(objects[0])
	f.reads(objects[1])
	if !here(0) || !here(1) {
		t.Error("there was room for two")
	}
	f.reads(objects[2])
	if here(0) || !here(1) || !here(2) {
		t.Errorf("two of three: %v %v %v", here(0), here(1), here(2))
	}
	others = 70_000 // 15000 for us
	s.makeRoom()
	if here(0) || here(1) || !here(2) {
		t.Errorf("one of three: %v %v %v", here(0), here(1), here(2))
	}
	others = 90_000 // none
	s.makeRoom()
	f.reads(objects[0])
	if here(0) || here(1) || here(2) || s.space.used != 0 {
		t.Errorf("none of three: %v %v %v, %d bytes", here(0), here(1), here(2), s.space.used)
	}
	s.statfs = func(string) (total, free int64, err error) { return 0, 0, syscall.EIO } // nothing is known: the size counts
	if f.reads(objects[0]); !here(0) {
		t.Error("there was room")
	}
	s.Close()
	wantSound(t, s)
}

// A quota, or what is kept for root, makes no disk full: half of what is ours is free.
func TestDiskWithAQuota(t *testing.T) {
	total, free := shareOf(syscall.Statfs_t{Bsize: 4096, Blocks: 1000, Bfree: 900, Bavail: 100})
	if total != 200*4096 || free != 100*4096 {
		t.Errorf("%d bytes of %d are free, want %d of %d", free, total, 100*4096, 200*4096)
	}
}
