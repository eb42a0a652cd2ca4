package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestFillFile(t *testing.T) {
	d := digest.FromString("x")
	for _, tt := range []struct{ size, synced, want int64 }{
		{0, 0, 0},
		{10, 5, 0},
		{10, 10, 10},
		{segmentSize, segmentSize - 1, 0},
		{3*segmentSize + 1, 2*segmentSize + 5, 2 * segmentSize},
		{3*segmentSize + 1, 3 * segmentSize, 3 * segmentSize},
		{9 * segmentSize, 9 * segmentSize, 9 * segmentSize},
	} {
		name := filepath.Join(t.TempDir(), "f")
		f, err := createFillFile(name, d, tt.size)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.sync(prefixBits(tt.size, tt.synced)); err != nil {
			t.Fatal(err)
		}
		f.close()
		if f, err = openFillFile(name, d); err != nil {
			t.Fatal(err)
		}
		if got := newSchedule(f.size, f.bits).avail(0); got != tt.want || f.size != tt.size {
			t.Errorf("%d of %d bytes synced: prefix %d of %d, want %d", tt.synced, tt.size, got, f.size, tt.want)
		}
		f.close()
		if _, err := openFillFile(name, digest.FromString("y")); err == nil {
			t.Error("opened under another digest")
		}
	}
}

// TestFailedSync shows that what a failed fsync did not write is never taken as written, however well later ones go.
func TestFailedSync(t *testing.T) {
	d, name := digest.FromString("x"), filepath.Join(t.TempDir(), "f")
	f, err := createFillFile(name, d, segmentSize)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	data := f.data
	if f.data, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	if err := f.sync([]byte{1}); err == nil {
		t.Fatal("the device syncs")
	}
	f.data.Close()
	f.data = data
	if err := f.sync([]byte{1}); !errors.Is(err, errLost) {
		t.Errorf("sync after one that failed: %v", err)
	}
	publish := func(*os.File, string) error { t.Error("published"); return nil }
	if err := f.publish(name, publish); !errors.Is(err, errLost) {
		t.Errorf("publish: %v", err)
	}
	again, err := openFillFile(name, d)
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if again.bits[0] != 0 {
		t.Error("the map is ahead of the data")
	}
}

// prefixBits marks the segments that are there once have bytes from the start are.
func prefixBits(size, have int64) []byte {
	s := newSchedule(size, nil)
	for have > 0 {
		n := min(have, s.length(0))
		r, _ := s.next(n, true)
		s.got(r, min(have, r.end-r.at))
		have -= n
	}
	return s.bits()
}

func FuzzParseMap(f *testing.F) {
	d := digest.FromString("x")
	for _, size := range []int64{0, 10, 20 * segmentSize} {
		name := filepath.Join(f.TempDir(), "f")
		ff, err := createFillFile(name, d, size)
		if err != nil {
			f.Fatal(err)
		}
		ff.close()
		m, err := os.ReadFile(name + ".map")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(m)
		f.Add(m[:len(m)/2])
	}
	f.Fuzz(func(t *testing.T, m []byte) {
		size, segment, bits, err := parseMap(m, d)
		if err != nil {
			return
		}
		if segment != segmentSize || size > 1<<40 { // see openFillFile
			return
		}
		s := newSchedule(size, bits)
		if p := s.avail(0); p < 0 || p > size || s.left < 0 {
			t.Errorf("prefix %d of %d bytes, %d left", p, size, s.left)
		}
	})
}
