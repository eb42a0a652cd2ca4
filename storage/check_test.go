package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// cache is a closed store with an image, a blob and an interrupted fill.
type cache struct {
	dir      string
	up       *registrytest.Faulty
	manifest registry.Object
	layer    registry.Object // of 200000 bytes
	config   registry.Object
	half     registry.Object
	bodies   map[registry.Object][]byte
}

func newCache(t *testing.T) cache {
	up, m, half, halfBody := upstream(t, 3<<20)
	dir := halfFill(t, up, half, 2<<20, false)
	img := registrytest.Image(1, 200000)
	registrytest.Push(t, m, "app", "v1", img)
	c := cache{dir: dir, up: up, half: half, bodies: map[registry.Object][]byte{half: halfBody}}
	s := openStore(t, storage.Options{Path: dir})
	for _, o := range img.Objects("app") {
		b, err := read(t.Context(), s.Over("m", up), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		c.bodies[o] = b
		switch {
		case o.Kind == registry.Manifest:
			c.manifest = o
		case len(b) == 200000:
			c.layer = o
		default:
			c.config = o
		}
	}
	if err := s.Tags("m").Save("app", "v1", img.Desc, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	up.Forget()
	return c
}

// copied is the same in another directory.
func (c cache) copied(t *testing.T) cache {
	t.Helper()
	from := c.dir
	c.dir = filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(c.dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	c.up.Forget()
	return c
}

func (c cache) blob(o registry.Object) string {
	return filepath.Join(c.dir, "blobs", "sha256", o.Digest.Encoded()[:2], o.Digest.Encoded())
}

func (c cache) rows(t *testing.T, change func(bucket func(string) *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(c.dir, "meta.db"), 0o600, nil)
	if err == nil {
		err = errors.Join(db.Update(func(tx *bbolt.Tx) error {
			return change(func(name string) *bbolt.Bucket { return tx.Bucket([]byte(name)) })
		}), db.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// files is everything in the directory.
func (c cache) files(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// check returns what was found as "kind path", sorted by nobody: Check finds in order but for what it reads at a time.
func check(t *testing.T, o storage.CheckOptions) (storage.CheckReport, []string) {
	t.Helper()
	var found []string
	o.Concurrency = 1
	o.Problem = func(p storage.Problem) {
		t.Logf("%+v", p)
		if p.Repaired != o.Repair || p.Detail == "" {
			t.Errorf("repaired: %+v", p)
		}
		found = append(found, fmt.Sprint(p.Kind, " ", p.Path))
	}
	report, err := storage.Check(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(len(found)); report.Problems != n || o.Repair && report.Repaired != n || !o.Repair && report.Repaired != 0 {
		t.Errorf("%d problems reported: %+v", n, report)
	}
	return report, found
}

func TestCheckSound(t *testing.T) {
	c := newCache(t)
	var done, total int64
	report, found := check(t, storage.CheckOptions{Path: c.dir, BytesPerSecond: 1 << 30,
		Progress: func(d, n int64) { done, total = d, n }})
	want := storage.CheckReport{Objects: 3, Bytes: total, Fills: 1, Links: 3, Tags: 1}
	if diff := cmp.Diff(want, report); diff != "" || found != nil {
		t.Errorf("found %v, report (-want +got):\n%s", found, diff)
	}
	if done != total || total < 200000 {
		t.Errorf("progress: %d of %d", done, total)
	}
}

// TestCheck damages a store in every way. Check finds just that and touches nothing; its repair loses nothing else.
func TestCheck(t *testing.T) {
	link := func(c cache, o registry.Object) []byte { return []byte(o.Digest.String() + "\x00blob\x00m\x00app") }
	absent := digest.FromString("absent")
	sound := newCache(t)
	for name, test := range map[string]struct {
		damage  func(t *testing.T, c cache) error
		want    []string // {layer} and {half} stand for their paths
		refetch []string // "open" or "stat", upstream, per object that is asked for again
	}{
		"a byte": {
			func(t *testing.T, c cache) error { return overwrite(c.blob(c.layer), 100000, []byte{0, 1, 2, 3}) },
			[]string{"corrupt {layer}"}, []string{"open"}},
		"truncated": {
			func(t *testing.T, c cache) error { return os.Truncate(c.blob(c.layer), 199999) },
			[]string{"corrupt {layer}"}, []string{"open"}},
		"longer": {
			func(t *testing.T, c cache) error { return overwrite(c.blob(c.layer), 200000, []byte{0}) },
			[]string{"corrupt {layer}"}, []string{"open"}},
		"lost": {
			func(t *testing.T, c cache) error { return os.Remove(c.blob(c.layer)) },
			[]string{"missing meta.db/objects"}, []string{"open"}},
		"an extra file": {
			func(t *testing.T, c cache) error { return os.WriteFile(c.blob(c.layer)+".bak", []byte("x"), 0o600) },
			[]string{"stranger {layer}.bak"}, nil},
		"a file in the wrong directory": {
			func(t *testing.T, c cache) error {
				if err := os.MkdirAll(filepath.Join(c.dir, "blobs", "sha256", "zz"), 0o700); err != nil {
					return err
				}
				return os.Rename(c.blob(c.layer), c.blob(c.config)[:len(c.blob(c.config))-64]+c.layer.Digest.Encoded())
			},
			[]string{"stranger blobs/sha256/zz", "stranger blobs/sha256/{config}/{layer hex}", "missing meta.db/objects"}, []string{"open"}},
		"a symbolic link": {
			func(t *testing.T, c cache) error {
				return errors.Join(os.Remove(c.blob(c.layer)), os.Symlink("/etc/passwd", c.blob(c.layer)))
			},
			[]string{"stranger {layer}", "missing meta.db/objects"}, []string{"open"}},
		"a link to nothing": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error {
					return b("links").Put([]byte(absent.String()+"\x00blob\x00m\x00app"), []byte(`{"size":1}`))
				})
				return nil
			},
			[]string{"dangling meta.db/links"}, nil},
		"a link of another size": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error {
					return b("links").Put(link(c, c.layer), []byte(`{"size":5}`))
				})
				return nil
			},
			[]string{"row meta.db/links"}, []string{"stat"}},
		"links that make no sense": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error {
					return errors.Join(b("links").Put(link(c, c.layer), []byte(`{`)), b("links").Put([]byte("?"), []byte(`{"size":1}`)))
				})
				return nil
			},
			[]string{"row meta.db/links", "row meta.db/links"}, []string{"stat"}},
		"rows of objects": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error {
					return errors.Join(b("objects").Put([]byte(c.layer.Digest), []byte("?")), b("objects").Put([]byte("?"), []byte("?")),
						b("objects").Put([]byte(c.manifest.Digest), make([]byte, 16)))
				})
				return nil
			},
			[]string{"row meta.db/objects", "row meta.db/objects", "row meta.db/objects"}, nil},
		"a link whose object has no row": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error { return b("objects").Delete([]byte(c.layer.Digest)) })
				return nil
			},
			[]string{"row meta.db/links"}, nil},
		"a tag": {
			func(t *testing.T, c cache) error {
				c.rows(t, func(b func(string) *bbolt.Bucket) error { return b("tags").Put([]byte("m\x00app\x00v2"), []byte(`{}`)) })
				return nil
			},
			[]string{"row meta.db/tags"}, nil},
		"an interrupted fill": {
			func(t *testing.T, c cache) error {
				return overwrite(filepath.Join(c.dir, "fills", "sha256-"+c.half.Digest.Encoded()+".map"), 20, []byte{9})
			},
			[]string{"fill {half}.map"}, nil},
		"an interrupted fill is short": {
			func(t *testing.T, c cache) error {
				return os.Truncate(filepath.Join(c.dir, "fills", "sha256-"+c.half.Digest.Encoded()+".data"), 5)
			},
			[]string{"fill {half}.map"}, nil},
		"the index": {
			func(t *testing.T, c cache) error {
				return overwrite(filepath.Join(c.dir, "meta.db"), 2*int64(os.Getpagesize()), make([]byte, 5*os.Getpagesize()))
			},
			[]string{"index meta.db"}, []string{"stat", "open", "stat"}},
		"the index is short": {
			func(t *testing.T, c cache) error {
				return os.Truncate(filepath.Join(c.dir, "meta.db"), 3*int64(os.Getpagesize()))
			},
			[]string{"index meta.db"}, []string{"stat", "open", "stat"}},
		"the index is something else": {
			func(t *testing.T, c cache) error {
				return os.WriteFile(filepath.Join(c.dir, "meta.db"), make([]byte, 1<<16), 0o600)
			},
			[]string{"index meta.db"}, []string{"stat", "open", "stat"}},
		"the index is gone": {
			func(t *testing.T, c cache) error { return os.Remove(filepath.Join(c.dir, "meta.db")) },
			nil, []string{"stat", "open", "stat"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := sound.copied(t)
			if err := test.damage(t, c); err != nil {
				t.Fatal(err)
			}
			replace := strings.NewReplacer("{layer}", strings.TrimPrefix(c.blob(c.layer), c.dir+"/"), "{layer hex}", c.layer.Digest.Encoded(),
				"{config}", c.config.Digest.Encoded()[:2], "{half}", "fills/sha256-"+c.half.Digest.Encoded())
			var want []string
			for _, w := range test.want {
				want = append(want, replace.Replace(w))
			}
			before := c.files(t)
			_, found := check(t, storage.CheckOptions{Path: c.dir})
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, c.files(t)); diff != "" {
				t.Error("a look changed the store")
			}
			_, found = check(t, storage.CheckOptions{Path: c.dir, Repair: true})
			if diff := cmp.Diff(want, found); diff != "" {
				t.Errorf("to be repaired (-want +got):\n%s", diff)
			}
			if _, found = check(t, storage.CheckOptions{Path: c.dir}); found != nil {
				t.Errorf("after the repair: %q", found)
			}
			s := openStore(t, storage.Options{Path: c.dir})
			for _, o := range []registry.Object{c.config, c.manifest, c.layer} {
				wantBytes(t, s.Over("m", c.up), o, registry.Whole, c.bodies[o])
			}
			var calls []string
			for _, call := range c.up.Calls() {
				calls = append(calls, strings.Fields(call)[0])
			}
			if diff := cmp.Diff(test.refetch, calls); diff != "" {
				t.Errorf("upstream calls (-want +got):\n%s\n%q", diff, c.up.Calls())
			}
			wantBytes(t, s.Over("m", c.up), c.half, registry.Whole, c.bodies[c.half])
		})
	}
}

// TestIndexRots overwrites one page of meta.db after another. The store starts, and everybody gets the right bytes, or it says
// what to do; and that helps.
func TestIndexRots(t *testing.T) {
	sound := newCache(t)
	info, err := os.Stat(filepath.Join(sound.dir, "meta.db"))
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	for at := int64(0); at < info.Size(); at += page {
		for _, b := range []byte{0, 0xff} {
			c := sound.copied(t)
			if err := overwrite(filepath.Join(c.dir, "meta.db"), at, bytes.Repeat([]byte{b}, int(page))); err != nil {
				t.Fatal(err)
			}
			reads := func(s *storage.Store) {
				for _, o := range []registry.Object{c.config, c.manifest, c.layer} {
					wantBytes(t, s.Over("m", c.up), o, registry.Whole, c.bodies[o])
				}
				if err := s.Close(); err != nil && !strings.Contains(err.Error(), "fsck --repair") {
					t.Errorf("page %d of %q: close: %v", at/page, b, err)
				}
			}
			s, err := storage.Open(storage.Options{Path: c.dir})
			if err == nil {
				reads(s)
			} else if !strings.Contains(err.Error(), "fsck --repair") {
				t.Errorf("page %d of %q: %v", at/page, b, err)
			}
			if _, err := storage.Check(t.Context(), storage.CheckOptions{Path: c.dir, Repair: true}); err != nil {
				t.Errorf("page %d of %q: repair: %v", at/page, b, err)
			}
			if report, err := storage.Check(t.Context(), storage.CheckOptions{Path: c.dir}); err != nil || report.Problems > 0 {
				t.Errorf("page %d of %q: after the repair: %+v, %v", at/page, b, report, err)
			}
			if s, err = storage.Open(storage.Options{Path: c.dir}); err != nil {
				t.Errorf("page %d of %q: after the repair: %v", at/page, b, err)
			} else {
				reads(s)
			}
		}
	}
}

// TestCheckLeftovers leaves what crashes leave: no problem, and in order after the next start.
func TestCheckLeftovers(t *testing.T) {
	c := newCache(t)
	for _, name := range []string{"tmp/7", "fills/sha256-" + c.layer.Digest.Encoded() + ".data", "fills/x.map"} {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int64{3, 0} {
		report, found := check(t, storage.CheckOptions{Path: c.dir})
		if found != nil || report.Leftover != want || report.Fills != 1 {
			t.Errorf("found %q, %+v, want %d left over", found, report, want)
		}
		if err := openStore(t, storage.Options{Path: c.dir}).Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckUnreadable meets errors of one file, which is bad, and of the machine, which ends the check.
func TestCheckUnreadable(t *testing.T) {
	c := newCache(t)
	for _, test := range []struct {
		err error
		bad bool
	}{{syscall.EIO, true}, {syscall.EACCES, true}, {syscall.EMFILE, false}} {
		for _, late := range []bool{false, true} { // when it is opened, when it is read
			var found []string
			report, err := storage.CheckWith(t.Context(), storage.CheckOptions{Path: c.dir, Problem: func(p storage.Problem) {
				found = append(found, fmt.Sprint(p.Kind, " ", p.Digest))
			}}, func(path string) (fs.File, error) {
				switch {
				case path != c.blob(c.layer):
				case late:
					f, err := os.Open(path)
					return failing{f, test.err}, err
				default:
					return nil, &fs.PathError{Op: "open", Path: path, Err: test.err}
				}
				return os.Open(path)
			})
			if !test.bad {
				if !errors.Is(err, test.err) || found != nil {
					t.Errorf("%v: %v, found %q", test.err, err, found)
				}
				continue
			}
			want := []string{"unreadable " + c.layer.Digest.String()}
			if diff := cmp.Diff(want, found); err != nil || diff != "" || report.Objects != 2 {
				t.Errorf("%v: %v, %+v, found (-want +got):\n%s", test.err, err, report, diff)
			}
		}
	}
}

// failing is a file of which only the beginning can be read.
type failing struct {
	fs.File
	err error
}

func (f failing) Read(p []byte) (int, error) {
	n, err := f.File.Read(p[:min(len(p), 1000)])
	if err != nil {
		return n, err
	}
	return n, &fs.PathError{Op: "read", Path: "it", Err: f.err}
}

func TestCheckErrors(t *testing.T) {
	c := newCache(t)
	if _, err := storage.Check(t.Context(), storage.CheckOptions{Path: filepath.Join(c.dir, "absent")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := storage.Check(ctx, storage.CheckOptions{Path: c.dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	openStore(t, storage.Options{Path: c.dir})
	for _, repair := range []bool{false, true} {
		if _, err := storage.Check(t.Context(), storage.CheckOptions{Path: c.dir, Repair: repair}); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("in use: %v", err)
		}
	}
}
