package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// leave makes in dir what an interrupted fill of b leaves that has the segments in bits. The rest of its data is not zero, as
// after a crash in mid-write.
func leave(dir string, b registrytest.Blob, bits []byte) error {
	s := layout{dir}
	f, err := createFillFile(s.fillName(b.Desc.Digest), b.Desc.Digest, b.Desc.Size)
	if err != nil {
		return err
	}
	defer f.close()
	plan := newSchedule(b.Desc.Size, bits)
	for i := range plan.have {
		at := int64(i) * segmentSize
		p := b.Body[at : at+plan.length(i)]
		if !plan.full(i) {
			p = bytes.Repeat([]byte{0xa5}, int(plan.length(i)/2))
		}
		if _, err := f.data.WriteAt(p, at); err != nil {
			return err
		}
	}
	return f.sync(plan.bits())
}

// TestResumeFromAnyBitmap shows that a fill goes on from any set of segments, wherever its first reader begins: what is
// missing is asked for once, what is on the disk never.
func TestResumeFromAnyBitmap(t *testing.T) {
	t.Parallel()
	const size, sets = 7 * segmentSize / 2, 1 << 4 // the fourth segment is half one
	m, dir := mem.New(), t.TempDir()
	first, err := Open(Options{Path: dir}) // makes the directories
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	var blobs []registrytest.Blob
	for set := range sets {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(set), size))
		if err := errors.Join(m.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)), leave(dir, b, []byte{byte(set)})); err != nil {
			t.Fatal(err)
		}
		blobs = append(blobs, b)
	}
	s, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	up := registrytest.NewFaulty(m)
	for set, b := range blobs {
		up.Forget()
		at := int64(set*7%sets) * size / sets
		c, err := s.Over("m", up).Open(t.Context(), registry.Object{Repo: "app", Digest: b.Desc.Digest}, registry.Range{Offset: at, Length: -1})
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || !bytes.Equal(got, b.Body[at:]) {
			t.Errorf("set %04b from %d: %d bytes, %v", set, at, len(got), err)
		}
		plan := newSchedule(size, []byte{byte(set)})
		if plan.left == 0 && (up.Count("open") != 0 || up.Count("stat") != 1) {
			t.Errorf("nothing was missing: upstream calls %q", up.Calls())
		}
		for _, call := range up.Calls() {
			var r registry.Range
			if !strings.HasPrefix(call, "open") {
				continue
			}
			if _, err := fmt.Sscanf(call[strings.LastIndexByte(call, ' ')+1:], "%d+%d", &r.Offset, &r.Length); err != nil {
				t.Fatalf("%s: %v", call, err)
			}
			r, _ = r.Clip(size)
			for i := r.Offset / segmentSize; i*segmentSize < r.Offset+r.Length; i++ {
				if plan.full(int(i)) {
					t.Errorf("set %04b from %d: segment %d was there, or is asked for twice: %q", set, at, i, up.Calls())
				}
				plan.have[i] = int32(plan.length(int(i)))
			}
			plan.left -= r.Length
		}
		if plan.left != 0 {
			t.Errorf("set %04b from %d: %d bytes too few asked for: %q", set, at, plan.left, up.Calls())
		}
	}
}

// TestCloseWhileHashing shows that a store does not hash the whole of a large interrupted fill before it closes.
func TestCloseWhileHashing(t *testing.T) {
	blob := registrytest.NewBlob("", registrytest.Bytes(1, 8*segmentSize))
	m := mem.New()
	if err := m.PutBlob(t.Context(), "app", blob.Desc, bytes.NewReader(blob.Body)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	first, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := leave(dir, blob, []byte{0x7f}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.buffers.New = func() any { b := make([]byte, 1); return &b } // so that hashing takes seconds
	o := registry.Object{Repo: "app", Digest: blob.Desc.Digest}
	c, err := s.Over("m", m).Open(t.Context(), o, registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.mu.Lock()
	f := s.fills[o.Digest]
	s.mu.Unlock()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n := f.hashed.Load(); n >= 7*segmentSize {
		t.Errorf("%d bytes were hashed by a store that was told to close", n)
	}
	if _, err := io.ReadAll(c); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("its reader got %v", err)
	}
}
