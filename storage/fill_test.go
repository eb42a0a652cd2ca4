package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func TestManyReadersOneDownload(t *testing.T) {
	const size = 3<<20 + 123
	up, _, o, body := upstream(t, size)
	half := make(chan struct{})
	up.Body = func(c registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 1 << 19, Stall: half} }
	r := openStore(t, storage.Options{}).Over("m", up)
	ranges := []registry.Range{registry.Whole, {Offset: 0, Length: 1 << 20}, {Offset: 2 << 20, Length: -1}, {Offset: size - 10, Length: 10}}
	var wg sync.WaitGroup
	follow := func() {
		for i := range 32 {
			wg.Go(func() {
				rg := ranges[i%len(ranges)]
				want, _ := rg.Clip(size)
				wantSame(t, r, o, rg, body[want.Offset:want.Offset+want.Length])
			})
		}
	}
	follow()
	wantBytes(t, r, o, registry.Range{Offset: 0, Length: 1 << 19}, body[:1<<19]) // the fill is under way
	follow()                                                                     // late joiners
	close(half)
	wg.Wait()
	wantBytes(t, r, o, registry.Whole, body)
	wantOnce(t, up, size)
}

func wantSame(t *testing.T, r registry.Reader, o registry.Object, rg registry.Range, want []byte) {
	t.Helper()
	if got, err := read(t.Context(), r, o, rg); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %v: %d bytes, %v; want %d bytes", rg, len(got), err, len(want))
	}
}

func TestReaderLeaves(t *testing.T) {
	const size = 4 << 20
	up, _, o, body := upstream(t, size)
	half := make(chan struct{})
	up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 1 << 19, Stall: half} }
	r := openStore(t, storage.Options{}).Over("m", up)
	ctx, cancel := context.WithCancel(t.Context())
	c, err := r.Open(ctx, o, registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(c); !errors.Is(err, context.Canceled) {
		t.Errorf("read after cancel: %v", err)
	}
	c.Close()
	close(half)
	wantBytes(t, r, o, registry.Whole, body)
	wantOnce(t, up, size)
}

// TestFillKeepsLane also shows that nothing else of the caller's context reaches upstream.
func TestFillKeepsLane(t *testing.T) {
	up, _, o, body := upstream(t, 100)
	var got registry.Lane
	var alive error
	ctx, cancel := context.WithCancel(registry.WithLane(t.Context(), registry.LaneSweep))
	r := openStore(t, storage.Options{}).Over("m", openFunc{up, func(c context.Context) { got = registry.LaneOf(c); cancel(); alive = c.Err() }})
	r.Open(ctx, o, registry.Whole)
	wantBytes(t, r, o, registry.Whole, body)
	if got != registry.LaneSweep || alive != nil {
		t.Errorf("lane %v, context error %v; want sweep and none", got, alive)
	}
	wantCalls(t, up, 1, 0)
}

// TestClientHurriesFill shows that a fill which nobody waited for gets more streams, in the client's lane, once a client does.
func TestClientHurriesFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m, o, body := upstream(t, 24<<20)
		rest := make(chan struct{})
		var lanes [4]atomic.Int32
		up := registrytest.NewFaulty(openFunc{m, func(ctx context.Context) {
			lanes[registry.LaneOf(ctx)].Add(1)
			time.Sleep(50 * time.Millisecond)
		}})
		up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 10, Stall: rest} }
		s := openStore(t, storage.Options{StallTimeout: time.Hour})
		c, err := s.Over("m", up).Open(registry.WithLane(t.Context(), registry.LaneSweep), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		time.Sleep(time.Second)
		if n := lanes[registry.LaneSweep].Load(); n == 0 || n > 2 || lanes[registry.LaneClient].Load() > 0 {
			t.Errorf("a sweep's fill has %d streams", n)
		}
		got := make(chan struct{})
		for i := range int64(8) { // each waits for bytes of its own
			go func() {
				wantBytes(t, s.Over("m", up), o, registry.Range{Offset: i * 3 << 20, Length: 1 << 20}, body[i*3<<20:i*3<<20+1<<20])
				got <- struct{}{}
			}()
		}
		time.Sleep(time.Second)
		if n := lanes[registry.LaneClient].Load(); n < 3 { // runs of some MiB cover all the readers
			t.Errorf("with clients it has %d streams more", n)
		}
		close(rest)
		for range 8 {
			<-got
		}
		wantBytes(t, s.Over("m", up), o, registry.Whole, body)
		s.Close()
	})
}

type openFunc struct {
	registry.Reader
	before func(context.Context)
}

func (f openFunc) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	f.before(ctx)
	return f.Reader.Open(ctx, o, r)
}

func TestTailIsWithheld(t *testing.T) {
	const size, tail = 1 << 20, 64 << 10
	for _, sound := range []bool{true, false} {
		up, _, o, body := upstream(t, size)
		up.Body = func(registrytest.Call) *registrytest.Fault {
			return &registrytest.Fault{At: size - 1, Corrupt: !sound, Stall: nil}
		}
		if sound {
			up.Body = nil
		}
		r := openStore(t, storage.Options{}).Over("m", up)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				got, err := read(t.Context(), r, o, registry.Whole)
				switch {
				case sound && (err != nil || !bytes.Equal(got, body)):
					t.Errorf("sound: %d bytes, %v", len(got), err)
				case !sound && !errors.Is(err, registry.Corrupt):
					t.Errorf("corrupt: %d bytes, %v; want corrupt", len(got), err)
				case !sound && len(got) > size-tail:
					t.Errorf("corrupt: %d bytes left, more than %d", len(got), size-tail)
				}
			})
		}
		wg.Wait()
		if !sound { // dropped: asked again, and good now
			up.Body = nil
			wantBytes(t, r, o, registry.Whole, body)
		}
	}
}

// TestProbes shows that small closed ranges are answered before the digest is known, except from small blobs.
func TestProbes(t *testing.T) {
	for _, tt := range []struct {
		name string
		size int
		r    registry.Range
		want bool
	}{
		{"first bytes", 1 << 20, registry.Range{Offset: 0, Length: 2}, true},
		{"inside the tail", 1 << 20, registry.Range{Offset: 1<<20 - 1000, Length: 51}, true},
		{"open range in the tail", 1 << 20, registry.Range{Offset: 1<<20 - 1000, Length: -1}, false},
		{"long closed range", 1 << 20, registry.Range{Offset: 1<<20 - 128<<10, Length: 100 << 10}, false},
		{"small blob", 1000, registry.Range{Offset: 0, Length: 2}, false},
		{"small blob whole", 1000, registry.Whole, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up, _, o, body := upstream(t, tt.size)
				last := make(chan struct{})
				up.Body = func(registrytest.Call) *registrytest.Fault {
					return &registrytest.Fault{At: int64(tt.size - 1), Stall: last}
				}
				s := openStore(t, storage.Options{StallTimeout: time.Hour})
				r := s.Over("m", up)
				clip, _ := tt.r.Clip(int64(tt.size))
				want := body[clip.Offset : clip.Offset+clip.Length]
				c, err := r.Open(t.Context(), o, tt.r)
				if err != nil {
					t.Fatal(err)
				}
				got := make(chan []byte, 1)
				go func() { b, _ := io.ReadAll(c); c.Close(); got <- b }()
				time.Sleep(time.Second)
				synctest.Wait()
				select {
				case b := <-got:
					if !tt.want || !bytes.Equal(b, want) {
						t.Errorf("got %d bytes before the digest was known", len(b))
					}
					close(last)
				default:
					if tt.want {
						t.Error("nothing before the digest was known")
					}
					close(last)
					if b := <-got; !bytes.Equal(b, want) {
						t.Errorf("got %d bytes, want %d", len(b), len(want))
					}
				}
				wantBytes(t, r, o, registry.Whole, body)
				s.Close()
			})
		})
	}
}

func TestRefusedOpen(t *testing.T) {
	for _, class := range []registry.Class{registry.NotFound, registry.Denied, registry.Throttled, registry.Unavailable} {
		up, _, o, body := upstream(t, 100000)
		release := make(chan struct{})
		up.Before = func(c registrytest.Call) error {
			if c.N > 1 {
				return nil
			}
			<-release
			return registry.Errorf(class, "go away")
		}
		r := openStore(t, storage.Options{}).Over("m", up)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := r.Open(t.Context(), o, registry.Whole); registry.ClassOf(err) != class {
					if got, err := read(t.Context(), r, o, registry.Whole); err != nil || !bytes.Equal(got, body) {
						t.Errorf("%v: late reader: %d bytes, %v", class, len(got), err)
					}
				}
			})
		}
		for up.Count("open") == 0 {
			time.Sleep(time.Millisecond)
		}
		close(release)
		wg.Wait()
		wantBytes(t, r, o, registry.Whole, body)
		if n := up.Count(); n != 2 {
			t.Errorf("%v: %d upstream calls, want one refused and one sound: %q", class, n, up.Calls())
		}
	}
}

func TestSizeChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, _, o, _ := upstream(t, 200000)
		lying := &sizes{Faulty: up, extra: 1}
		up.Body = func(c registrytest.Call) *registrytest.Fault {
			return &registrytest.Fault{At: 1000, Truncate: true}
		}
		s := openStore(t, storage.Options{})
		if got, err := read(t.Context(), s.Over("m", lying), o, registry.Whole); !errors.Is(err, registry.Corrupt) {
			t.Errorf("read: %d bytes, %v; want corrupt", len(got), err)
		}
		s.Close()
	})
}

// sizes answers every ranged open with a size that is off.
type sizes struct {
	*registrytest.Faulty
	extra int64
}

func (s *sizes) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := s.Faulty.Open(ctx, o, r)
	if err == nil {
		c.From = s
		if r.Offset > 0 {
			c.Descriptor.Size += s.extra
		}
	}
	return c, err
}

func TestSpan(t *testing.T) {
	const size = 3<<20 + 1
	up, _, o, body := upstream(t, size)
	r := openStore(t, storage.Options{}).Over("m", up)
	for range 3 { // cold, then hot
		c, err := r.Open(t.Context(), o, registry.Range{Offset: 10, Length: size - 20})
		if err != nil {
			t.Fatal(err)
		}
		sp := c.ReadCloser.(registry.Spanner)
		var got bytes.Buffer
		for i := 0; ; i++ {
			if i%3 == 2 { // Read and Span may be mixed
				io.CopyN(&got, c, 100)
				continue
			}
			f, n, err := sp.Span(t.Context(), 1<<20)
			if err == io.EOF {
				break
			}
			if err != nil || n < 1 || n > 1<<20 {
				t.Fatalf("span: %d bytes, %v", n, err)
			}
			if _, err := io.CopyN(&got, f, n); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got.Bytes(), body[10:size-10]) {
			t.Errorf("spans gave %d bytes, want %d", got.Len(), size-20)
		}
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	}
	wantOnce(t, up, size)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
