package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func busy(class registry.Class, after time.Duration) error {
	e := registry.Errorf(class, "busy")
	e.RetryAfter = after
	return e
}

// TestTroubleAtFirst shows that passing trouble before the first byte costs the reader time, not the pull, and that an
// upstream is asked as seldom as it says.
func TestTroubleAtFirst(t *testing.T) {
	const size = 500_000
	for name, tt := range map[string]struct {
		err      error
		fails    int // calls that fail
		calls    int // in all
		from, to time.Duration
		want     error
	}{
		"503 twice":            {busy(registry.Unavailable, 0), 2, 3, 300 * time.Millisecond, 900 * time.Millisecond, nil},
		"429 twice":            {busy(registry.Throttled, 0), 2, 3, 300 * time.Millisecond, 900 * time.Millisecond, nil},
		"503 for good":         {busy(registry.Unavailable, 0), 99, 5, 700 * time.Millisecond, 2 * time.Second, registry.Unavailable},
		"429, come back in 3s": {busy(registry.Throttled, 3*time.Second), 1, 2, 3 * time.Second, 4 * time.Second, nil},
		"429 for a minute":     {busy(registry.Throttled, time.Minute), 1, 1, 0, 0, registry.Throttled},
		"refused":              {busy(registry.Denied, 0), 1, 1, 0, 0, registry.Denied},
		"absent":               {registry.Errorf(registry.NotFound, "gone"), 1, 1, 0, 0, registry.NotFound},
	} {
		for _, after := range []bool{false, true} { // failed; failed after taking effect
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					up, _, o, body := upstream(t, size)
					hook := func(c registrytest.Call) error {
						if c.N <= tt.fails {
							return tt.err
						}
						return nil
					}
					if up.Before = hook; after {
						up.Before, up.After = nil, hook
					}
					s := openStore(t, storage.Options{})
					start := time.Now()
					if tt.want == nil {
						wantBytes(t, s.Over("m", up), o, registry.Whole, body)
					} else if _, err := s.Over("m", up).Open(t.Context(), o, registry.Whole); !errors.Is(err, tt.want) {
						t.Errorf("open: %v, want %v", err, tt.want)
					}
					// Waits are 100 to 300, 200 to 600, 400 to 1200 and 800 to 2400 ms: of five calls the last two may come too late.
					if n, took := up.Count("open"), time.Since(start); n > tt.calls || n < max(1, tt.calls-2) || tt.want == nil && n != tt.calls || took < tt.from/2 || took > tt.to {
						t.Errorf("%d calls, %v", n, took)
					}
					s.Close()
				})
			})
		}
	}
}

// TestSilentAtFirst shows that a first call on a dead connection is repeated beside it, and does not outlive the answer.
func TestSilentAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, _, o, body := upstream(t, 500_000)
		ended := make(chan error, 1)
		var calls atomic.Int32
		r := openFunc{up, func(ctx context.Context) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				ended <- ctx.Err()
			}
		}}
		s := openStore(t, storage.Options{})
		start := time.Now()
		wantBytes(t, s.Over("m", r), o, registry.Whole, body)
		if took := time.Since(start); took > 7*time.Second || calls.Load() != 2 {
			t.Errorf("%d calls, %v", calls.Load(), took)
		}
		<-ended
		s.Close()
	})
}

// TestTroubleInTheMiddle shows that a pull survives whatever passing trouble parallel reads meet, that an upstream is not asked
// by all of them again, and that no byte comes twice.
func TestTroubleInTheMiddle(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for name, tt := range map[string]struct {
		open, body error
		calls      int // that fail, from the 3rd on
		least      time.Duration
	}{
		"503":                    {open: busy(registry.Unavailable, 0), calls: 4},
		"429":                    {open: busy(registry.Throttled, 0), calls: 8},
		"429, come back in 5s":   {open: busy(registry.Throttled, 5*time.Second), calls: 2, least: 5 * time.Second},
		"503 for long":           {open: busy(registry.Unavailable, 0), calls: 7, least: time.Second},
		"resets":                 {body: io.ErrUnexpectedEOF, calls: 4},
		"a refusal that passes":  {open: busy(registry.Denied, 0), calls: 2},
		"an answer that is lost": {open: syscall.ECONNRESET, calls: 3},
	} {
		for _, after := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					_, m, o, body := upstream(t, size)
					sent := &meter{Reader: m}
					up := registrytest.NewFaulty(sent)
					hits := func(c registrytest.Call) bool { return c.N >= 3 && c.N < 3+tt.calls }
					hook := func(c registrytest.Call) error {
						if hits(c) {
							return tt.open
						}
						return nil
					}
					if up.Before = hook; after {
						up.Before, up.After = nil, hook
					}
					up.Body = func(c registrytest.Call) *registrytest.Fault {
						if tt.body != nil && hits(c) {
							return &registrytest.Fault{At: 1000, Err: tt.body}
						}
						return nil
					}
					s := openStore(t, storage.Options{})
					start := time.Now()
					wantBytes(t, s.Over("m", up), o, registry.Whole, body)
					if took := time.Since(start); took < tt.least || took > 30*time.Second {
						t.Errorf("took %v", took)
					}
					synctest.Wait()
					if n := sent.n.Load(); n != size {
						t.Errorf("upstream sent %d bytes of %d", n, size)
					}
					s.Close()
				})
			})
		}
	}
}

func TestBrokenStreamContinues(t *testing.T) {
	const size = 3 << 20
	broken := registry.Errorf(registry.Unavailable, "connection reset")
	for name, fault := range map[string]registrytest.Fault{
		"truncated": {At: 1000, Truncate: true},
		"broken":    {At: 1<<19 + 7, Err: broken},
		"at once":   {At: 0, Err: broken},
		"unclassed": {At: 1<<20 - 5, Err: io.ErrUnexpectedEOF},
		"stalled":   {At: 70000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, m, o, body := upstream(t, size)
				sent := &meter{Reader: m}
				up := registrytest.NewFaulty(sent)
				up.Body = func(c registrytest.Call) *registrytest.Fault {
					if c.N == 1 {
						f := fault
						if !f.Truncate && f.Err == nil {
							f.Stall = make(chan struct{}) // of this bubble, never closed
						}
						return &f
					}
					return nil
				}
				s := openStore(t, storage.Options{})
				start := time.Now()
				wantBytes(t, s.Over("m", up), o, registry.Whole, body)
				if d := time.Since(start); d > 25*time.Second {
					t.Errorf("took %v", d)
				}
				synctest.Wait()
				if sent.n.Load() != size {
					t.Errorf("upstream sent %d bytes, want %d once", sent.n.Load(), size)
				}
				first := min(fault.At, 1<<20-1) // c.N == 1 brings the first MiB
				if want := "open " + o.String() + " " + itoa(first) + "+" + itoa(1<<20-first); fault.At < 1<<20 && !slices.Contains(up.Calls()[1:], want) {
					t.Errorf("upstream calls: %q; want %s", up.Calls(), want)
				}
				s.Close()
			})
		})
	}
}

// TestDeadUpstream shows that an upstream which stays broken is asked a few times, ever more slowly, and that the fill goes
// on where it was when somebody asks again.
func TestDeadUpstream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 3 << 20
		up, _, o, body := upstream(t, size)
		down := true
		var mu sync.Mutex
		var at []time.Duration
		start := time.Now()
		up.Before = func(c registrytest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(start))
			if c.N > 1 && down {
				return registry.Errorf(registry.Unavailable, "no route to host")
			}
			return nil
		}
		up.Body = func(c registrytest.Call) *registrytest.Fault {
			if c.N > 1 {
				return nil
			}
			return &registrytest.Fault{At: 2<<20 + 5, Truncate: true}
		}
		s := openStore(t, storage.Options{})
		r := s.Over("m", up)
		got, err := read(t.Context(), r, o, registry.Whole)
		if !errors.Is(err, registry.Unavailable) || !bytes.Equal(got, body[:len(got)]) || len(got) != 1<<20 {
			t.Errorf("read: %d bytes, %v; want unavailable after 1 MiB", len(got), err)
		}
		if n := len(at); n < 8 || n > 11 || at[n-1] < 5*time.Second || at[n-1] > 13*time.Second {
			t.Errorf("upstream was asked at %v", at)
		}
		mu.Lock()
		down = false
		mu.Unlock()
		up.Forget()
		wantBytes(t, r, o, registry.Whole, body)
		if n := asked(t, up.Calls(), 1<<20, size); n != size-1<<20 {
			t.Errorf("upstream calls: %q", up.Calls())
		}
		s.Close()
	})
}

// TestTooLongToWait shows that nobody waits for an upstream that wants to be left alone for long, nor does it get asked.
func TestTooLongToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, _, o, _ := upstream(t, 4<<20)
		var refused atomic.Int32
		up.Before = func(c registrytest.Call) error {
			if c.N == 1 {
				return nil
			}
			refused.Add(1)
			return busy(registry.Throttled, time.Minute)
		}
		s := openStore(t, storage.Options{})
		start := time.Now()
		_, err := read(t.Context(), s.Over("m", up), o, registry.Whole)
		if took := time.Since(start); !errors.Is(err, registry.Throttled) || took > time.Second || refused.Load() > 4 {
			t.Errorf("%v after %v and %d calls", err, took, refused.Load())
		}
		s.Close()
	})
}

// TestDeadIsNotHammered shows how often parallel reads ask an upstream that has died.
func TestDeadIsNotHammered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up, _, o, _ := upstream(t, 16<<20)
		var mu sync.Mutex
		var at []time.Time
		died := false
		up.Before = func(registrytest.Call) error {
			mu.Lock()
			defer mu.Unlock()
			if !died {
				return nil
			}
			at = append(at, time.Now())
			return registry.Errorf(registry.Unavailable, "no route to host")
		}
		up.Body = func(c registrytest.Call) *registrytest.Fault {
			mu.Lock()
			defer mu.Unlock()
			died = c.N >= 6
			return &registrytest.Fault{At: 100_000, Stall: make(chan struct{})}
		}
		s := openStore(t, storage.Options{})
		if _, err := read(t.Context(), s.Over("m", up), o, registry.Whole); !errors.Is(err, registry.Unavailable) {
			t.Errorf("read: %v, want unavailable", err)
		}
		second := make(map[int64]int)
		for _, t := range at {
			second[t.Unix()]++
		}
		for _, n := range second {
			if n > 6 {
				t.Errorf("asked %d times within a second, %d times in all", n, len(at))
			}
		}
		if len(at) > 16 {
			t.Errorf("asked %d times", len(at))
		}
		s.Close()
	})
}

// TestWriteFails shows that a disk which fails is not upstream's fault, and what stays on it.
func TestWriteFails(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for name, tt := range map[string]struct {
		errno syscall.Errno
		after bool
	}{
		"full": {syscall.ENOSPC, false}, "full after writing": {syscall.ENOSPC, true}, "quota": {syscall.EDQUOT, false},
		"broken": {syscall.EIO, false}, "broken after writing": {syscall.EIO, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up, m, o, body := upstream(t, size)
				s := openStore(t, storage.Options{})
				r := s.Over("m", up)
				for i := range 40 {
					old := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 50_000))
					put(t, m, "app", old)
					wantBytes(t, r, registry.Object{Repo: "app", Digest: old.Desc.Digest}, registry.Whole, old.Body)
				}
				var mu sync.Mutex
				broken := true
				room := 3 << 20
				s.SetWrite(func(f *os.File, p []byte, at int64) (int, error) {
					mu.Lock()
					defer mu.Unlock()
					room -= len(p)
					n := 0
					if !broken || room >= 0 || tt.after {
						n, _ = f.WriteAt(p, at)
					}
					if broken && room < 0 {
						return n, &os.PathError{Op: "write", Path: f.Name(), Err: tt.errno}
					}
					return n, nil
				})
				got, err := read(t.Context(), r, o, registry.Whole)
				if err == nil || !slices.Equal(got, body[:len(got)]) {
					t.Errorf("read while the disk fails: %d bytes, %v", len(got), err)
				}
				if at := int64(len(got)); tt.errno != syscall.EIO { // as a client continues: past the store
					wantBytes(t, r, o, registry.Range{Offset: at, Length: -1}, body[at:])
				}
				mu.Lock()
				broken = false
				mu.Unlock()
				time.Sleep(time.Minute)
				wantBytes(t, r, o, registry.Whole, body)
				synctest.Wait()
				count := counters(t, s)
				if n := count["ecr_mirror_digest_mismatches_total"]; n != 0 {
					t.Errorf("%v mismatches blamed on upstream", n)
				}
				if n := count["ecr_mirror_evictions_total"]; n > 11 { // 5 % of 10 MB
					t.Errorf("%v of 40 objects evicted", n)
				}
				if !s.Has("m", o) {
					t.Error("the store lacks the object")
				}
				s.Close()
			})
		})
	}
}
