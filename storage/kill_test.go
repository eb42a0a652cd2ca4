package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// TestKilledAnywhere takes the directory as kill -9 leaves it before and after every step by which objects come and go, and
// goes on with it: whoever reads gets the right bytes, for at most one more download of each object, nobody gets what was not
// his, and what is booked is what is on the disk.
func TestKilledAnywhere(t *testing.T) {
	f := newFaulted(t)
	base := memoryDir(t)
	var killed []string
	kill := func(when string) {
		dir := filepath.Join(base, fmt.Sprintf("%02d %s", len(killed), when))
		if err := os.CopyFS(dir, os.DirFS(f.dir)); err != nil {
			t.Error(err)
		}
		killed = append(killed, dir)
	}
	around := func(what string) func(func() error) error {
		return func(call func() error) error {
			kill("before " + what)
			defer kill("after " + what)
			return call()
		}
	}
	f.s.publish = publishing(around("a step of a blob"))
	f.s.writeFile = writing(around("a step of a manifest"))
	f.s.meta.update = func(fn func(*bbolt.Tx) error) error {
		return around("rows")(func() error { return f.s.meta.db.Update(fn) })
	}
	f.reads(f.layer)
	f.reads(f.manifest)
	f.s.mu.Lock()
	gone := f.s.forget(f.s.space.shrink(0, 9))
	f.s.mu.Unlock()
	kill("in an eviction")
	evicting := len(killed) - 1
	f.s.remove(gone)
	settle(f.s)
	if err := f.s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(killed) < 20 {
		t.Fatalf("killed only at %q", killed)
	}
	for i, dir := range killed {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			g := &faulted{t: t, up: f.up}
			_, err := Check(t.Context(), CheckOptions{Path: dir, Problem: func(p Problem) {
				if i < evicting || p.Kind != Missing { // what is being evicted may have its row a moment longer
					t.Errorf("fsck: %+v", p)
				}
			}})
			if err != nil {
				t.Error(err)
			}
			g.open(dir)
			g.wantBooked("after the kill")
			strange := g.s.Over("other", registrytest.NewFaulty(mem.New()))
			for _, o := range []registry.Object{f.layer, f.manifest} {
				if _, err := strange.Open(t.Context(), o, registry.Whole); !errors.Is(err, registry.NotFound) {
					t.Errorf("to a stranger: %v", err)
				}
				if n := g.reads(o); n > 1 {
					t.Errorf("%v: %d opens", o, n)
				}
				if n := g.reads(o); n != 0 {
					t.Errorf("%v: %d opens of what is cached", o, n)
				}
			}
			if err := g.s.Close(); err != nil {
				t.Error(err)
			}
			wantSound(t, g.s)
		})
	}
}
