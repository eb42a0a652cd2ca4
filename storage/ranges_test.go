package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

// TestParallelRanges reads a cold blob as a client that fetches in parallel does, the tail first, while the head does not come:
// the tail does not wait for it, and each byte is asked for once.
func TestParallelRanges(t *testing.T) {
	t.Parallel()
	const part, parts = 700_000, 20
	for _, open := range []bool{false, true} { // closed ranges, or open ones of which the client takes its part and leaves
		up, _, o, body := upstream(t, part*parts)
		rest := make(chan struct{})
		up.Body = func(c registrytest.Call) *registrytest.Fault {
			if c.Range.Offset == 0 {
				return &registrytest.Fault{Stall: rest}
			}
			return nil
		}
		s := openStore(t, storage.Options{StallTimeout: time.Minute})
		r := s.Over("m", up)
		var g sync.WaitGroup
		get := func(i int64) {
			rg := registry.Range{Offset: i * part, Length: part}
			if open {
				rg.Length = -1
			}
			c, err := r.Open(t.Context(), o, rg)
			if err != nil {
				t.Errorf("part %d: %v", i, err)
				return
			}
			defer c.Close()
			got := make([]byte, part)
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, body[i*part:(i+1)*part]) {
				t.Errorf("part %d: %v", i, err)
			}
			if i == parts-2 && !open { // the last has to wait for the digest
				close(rest)
			}
		}
		if open {
			close(rest)
		}
		for i := int64(parts - 1); i >= 0; i-- {
			g.Go(func() { get(i) })
		}
		g.Wait()
		wantBytes(t, r, o, registry.Whole, body)
		wantOnce(t, up, part*parts)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestProbeFetchesLittle shows that a look at a few bytes brings the segments they are in, and that a read of the whole brings
// the rest, once, also after a restart.
func TestProbeFetchesLittle(t *testing.T) {
	const size = 8<<20 + 100
	for _, restart := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			up, _, o, body := upstream(t, size)
			dir := t.TempDir()
			s := openStore(t, storage.Options{Path: dir})
			r := s.Over("m", up)
			for _, at := range []int64{10, size - 300, 3<<20 - 5} {
				wantBytes(t, r, o, registry.Range{Offset: at, Length: 200}, body[at:at+200])
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if n := asked(t, up.Calls(), 0, size); n != 4<<20 { // the third lies in two segments
				t.Errorf("probes asked for %d bytes: %q", n, up.Calls())
			}
			if restart {
				s.Close()
				s = openStore(t, storage.Options{Path: dir})
				r = s.Over("m", up)
			}
			wantBytes(t, r, o, registry.Whole, body)
			wantOnce(t, up, size)
			s.Close()
		})
	}
}

func TestFillOnProbe(t *testing.T) {
	const size = 3 << 20
	synctest.Test(t, func(t *testing.T) {
		up, _, o, body := upstream(t, size)
		s := openStore(t, storage.Options{FillOnProbe: true})
		wantBytes(t, s.Over("m", up), o, registry.Range{Offset: 10, Length: 2}, body[10:12])
		synctest.Wait()
		wantOnce(t, up, size)
		if !s.Has("m", o) {
			t.Error("the blob is not there")
		}
		s.Close()
	})
}

// TestTailRanges shows which ranges of a blob end well although its bytes turn out wrong: those that end before the tail, and
// probes. No other gives out a byte of the tail.
func TestTailRanges(t *testing.T) {
	const size, tail = 3 << 20, 64 << 10
	for name, tt := range map[string]struct {
		r    registry.Range
		most int
		ok   bool
	}{
		"whole":            {registry.Whole, size - tail, false},
		"open":             {registry.Range{Offset: size - 100_000, Length: -1}, 100_000 - tail, false},
		"open in the tail": {registry.Range{Offset: size - 1000, Length: -1}, 0, false},
		"ends in the tail": {registry.Range{Offset: size - 200_000, Length: 150_000}, 200_000 - tail, false},
		"before the tail":  {registry.Range{Offset: size - 300_000, Length: 200_000}, 200_000, true},
		"probe":            {registry.Range{Offset: size - 1000, Length: 900}, 900, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up, _, o, body := upstream(t, size)
				opened := make(chan struct{})
				up.Body = func(c registrytest.Call) *registrytest.Fault {
					if c.Range.Offset == 0 {
						return &registrytest.Fault{At: 77, Corrupt: true}
					}
					return nil
				}
				s := openStore(t, storage.Options{})
				s.SetWrite(func(f *os.File, p []byte, at int64) (int, error) {
					if at == 0 { // the verdict falls once the reader is there
						<-opened
					}
					return f.WriteAt(p, at)
				})
				r := s.Over("m", up)
				other := make(chan struct{})
				go func() { // wants the whole, or a probe would not have it judged
					_, _ = read(t.Context(), r, o, registry.Whole)
					close(other)
				}()
				synctest.Wait()
				c, err := r.Open(t.Context(), o, tt.r)
				if err != nil {
					t.Fatal(err)
				}
				go func() { time.Sleep(time.Second); close(opened) }()
				got, err := io.ReadAll(c)
				c.Close()
				if ok := err == nil; ok != tt.ok || len(got) > tt.most || ok && len(got) != tt.most {
					t.Errorf("%d bytes, %v; want %d at most, whole: %v", len(got), err, tt.most, tt.ok)
				}
				if !tt.ok && !errors.Is(err, registry.Corrupt) {
					t.Errorf("cut with %v, want corrupt", err)
				}
				if at := tt.r.Offset; at > 77 && !bytes.Equal(got, body[at:at+int64(len(got))]) {
					t.Error("wrong bytes")
				}
				<-other
				s.Close()
			})
		})
	}
}

// TestRenameUnderFollowers shows that readers of a fill do not notice its file being renamed, nor a reader who comes just then.
func TestRenameUnderFollowers(t *testing.T) {
	const size = 3 << 20
	up, _, o, body := upstream(t, size)
	s := openStore(t, storage.Options{})
	r := s.Over("m", up)
	var during []byte
	var duringErr error
	s.SetPublish(func(f *os.File, path string) error {
		err := durable.Publish(f, path)
		during, duringErr = read(t.Context(), r, o, registry.Whole)
		return err
	})
	var followers []*registry.Content
	for range 3 {
		c, err := r.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		followers = append(followers, c)
	}
	head := make([]byte, 1000)
	if _, err := io.ReadFull(followers[0], head); err != nil {
		t.Fatal(err)
	}
	for !s.Has("m", o) {
		time.Sleep(time.Millisecond)
	}
	if duringErr != nil || !bytes.Equal(during, body) {
		t.Errorf("reader at the time of the rename: %d bytes, %v", len(during), duringErr)
	}
	for i, c := range followers {
		got, err := io.ReadAll(c)
		if i == 0 {
			got = append(head, got...)
		}
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("follower %d: %d bytes, %v", i, len(got), err)
		}
	}
	wantOnce(t, up, size)
}

// whole is an upstream that ignores ranges from its nth open on.
type whole struct {
	*meter
	n     int64
	opens atomic.Int64
}

func (w *whole) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	if w.opens.Add(1) < w.n {
		return w.meter.Open(ctx, o, r)
	}
	c, err := w.meter.Open(ctx, o, registry.Whole)
	if err != nil {
		return nil, err
	}
	clip, ok := r.Clip(c.Descriptor.Size)
	if !ok {
		c.Close()
		return nil, registry.Errorf(registry.Invalid, "range")
	}
	if c.Sequential = r != registry.Whole; c.Sequential {
		if _, err := io.CopyN(io.Discard, c, clip.Offset); err != nil {
			return nil, err
		}
	}
	body := c.ReadCloser
	c.Range, c.ReadCloser = clip, limited{io.LimitReader(body, clip.Length), body}
	return c, nil
}

type limited struct {
	io.Reader
	io.Closer
}

// TestRangesIgnored shows that an upstream which answers ranges with everything is read by one stream, once, and not asked for
// a range of the next blob.
func TestRangesIgnored(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for name, tt := range map[string]struct {
		from   int64 // the open that is ignored first
		offset int64
		opens  int64
		most   int64 // bytes
	}{
		"at the start":      {1, 0, 2, size},
		"at an offset":      {1, 5 << 20, 2, size + 5<<20}, // what stands before the first answer is not kept
		"in mid-fill":       {3, 0, 0, 8 * size},
		"after one segment": {2, 0, 0, 8 * size},
	} {
		t.Run(name, func(t *testing.T) {
			up, m, o, body := upstream(t, size)
			w := &whole{meter: &meter{Reader: up}, n: tt.from}
			s := openStore(t, storage.Options{})
			r := s.Over("m", w)
			wantBytes(t, r, o, registry.Range{Offset: tt.offset, Length: -1}, body[tt.offset:])
			wantBytes(t, r, o, registry.Whole, body)
			if n := w.opens.Load(); tt.opens > 0 && n != tt.opens {
				t.Errorf("%d opens, want %d", n, tt.opens)
			}
			if n := w.meter.n.Load(); n > tt.most {
				t.Errorf("upstream sent %d bytes, want at most %d", n, tt.most)
			}
			if tt.from > 1 {
				return
			}
			next := registrytest.NewBlob("", registrytest.Bytes(1, size))
			put(t, m, "app", next)
			w.opens.Store(0)
			w.meter.n.Store(0)
			wantBytes(t, r, registry.Object{Repo: "app", Digest: next.Desc.Digest}, registry.Whole, next.Body)
			if w.opens.Load() != 1 || w.meter.n.Load() != size {
				t.Errorf("the next blob: %d opens, %d bytes; want 1 and %d", w.opens.Load(), w.meter.n.Load(), size)
			}
		})
	}
}

// TestNothingIsLeft shows that fills and their readers leave no descriptor behind; that they leave no goroutine is checked for
// all tests.
func TestNothingIsLeft(t *testing.T) {
	m := mem.New()
	s := openStore(t, storage.Options{})
	r := s.Over("m", m)
	files := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	before := files()
	for i := range 20 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 1<<20+i))
		put(t, m, "app", b)
		o := registry.Object{Repo: "app", Digest: b.Desc.Digest}
		var g sync.WaitGroup
		for j := range 10 {
			g.Go(func() {
				c, err := r.Open(t.Context(), o, registry.Range{Offset: int64(j) * 1000, Length: -1})
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.CopyN(io.Discard, c, int64(j)*100_000) // some leave early
				c.Close()
			})
		}
		g.Wait()
		for !s.Has("m", o) {
			time.Sleep(time.Millisecond)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); files() > before && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if n := files(); n > before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}
