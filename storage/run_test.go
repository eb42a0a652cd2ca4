package storage_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// TestRunKeepsTheUsed shows that access times are saved while running, survive kill -9, and decide what leaves ahead of need.
func TestRunKeepsTheUsed(t *testing.T) {
	const size = 100000
	m := mem.New()
	var objects []registry.Object
	for i := range 3 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), size))
		put(t, m, "app", b)
		objects = append(objects, registry.Object{Repo: "app", Digest: b.Desc.Digest})
	}
	killed := filepath.Join(t.TempDir(), "killed")
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := openStore(t, storage.Options{Path: dir})
		r := s.Over("m", m)
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- s.Run(ctx) }()
		for _, i := range []int{0, 1, 2, 0} { // 1 is used least lately
			if _, err := read(t.Context(), r, objects[i], registry.Whole); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-ran; err != nil {
			t.Errorf("run: %v", err)
		}
		s.Close()
	})
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, storage.Options{Path: killed, Size: 3 * size})
		ctx, stop := context.WithCancel(t.Context())
		go s.Run(ctx)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		stop()
		up := registrytest.NewFaulty(m)
		for i, o := range objects {
			if _, err := s.Over("m", up).Stat(t.Context(), o); err != nil {
				t.Error(err)
			}
			if asked := up.Count("stat") == 1; asked != (i == 1) {
				t.Errorf("object %d: evicted %v, want only 1", i, asked)
			}
			up.Forget()
		}
		s.Close()
	})
}
