package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// plan is a life of one blob in a store.
type plan struct {
	Size    int
	Opens   []mishap // of upstream's opens, in their order; later ones are sound
	Readers []visit
	Close   time.Duration // the store is closed and opened again; 0: it is not
}

// mishap is what happens to one answer of upstream.
type mishap struct {
	Class registry.Class // of the open's failure; Internal: it succeeds
	After bool           // it had taken effect
	Delay time.Duration
	At    int64 // where the body breaks; -1: nowhere
	How   int   // 0 error, 1 early end, 2 silence, 3 a wrong byte
}

// visit is a reader.
type visit struct {
	When  time.Duration
	Range registry.Range
	Takes int64 // bytes, then it leaves; -1: all
}

func drawPlan(t *rapid.T) plan {
	size := rapid.SampledFrom([]int{1, 70_000, 1 << 20, 1<<20 + 1, 2<<20 + 5}).Draw(t, "size")
	ms := func(most int, name string) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Millisecond
	}
	p := plan{Size: size}
	for range rapid.IntRange(0, 6).Draw(t, "mishaps") {
		m := mishap{At: -1, Delay: ms(200, "delay")}
		if rapid.Bool().Draw(t, "fails") {
			m.Class = rapid.SampledFrom([]registry.Class{registry.Unavailable, registry.Throttled, registry.Denied}).Draw(t, "class")
			m.After = rapid.Bool().Draw(t, "after")
		} else if rapid.Bool().Draw(t, "breaks") {
			m.At, m.How = rapid.Int64Range(0, min(int64(size)-1, 1<<20)).Draw(t, "at"), rapid.IntRange(0, 3).Draw(t, "how")
		}
		p.Opens = append(p.Opens, m)
	}
	for range rapid.IntRange(1, 5).Draw(t, "readers") {
		v := visit{When: ms(3000, "when"), Range: registry.Range{Offset: rapid.Int64Range(0, int64(size)-1).Draw(t, "offset"), Length: -1}, Takes: -1}
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			v.Range = registry.Whole
		case 1:
			v.Range.Length = rapid.Int64Range(1, int64(size)).Draw(t, "length")
		case 2:
			v.Range.Length = 100 // a probe
		case 3:
			v.Takes = rapid.Int64Range(0, int64(size)).Draw(t, "takes")
		}
		p.Readers = append(p.Readers, v)
	}
	if rapid.IntRange(0, 3).Draw(t, "restart") == 0 {
		p.Close = 1 + ms(2000, "close")
	}
	return p
}

// TestFillModel lives through random plans. Whatever happens, what a reader gets is a prefix of what it asked for, and all of
// it unless the read says otherwise; wrong bytes are never a whole body; and when all troubles are over a read succeeds, the
// blob is there, and upstream gave no byte twice but for those that a restart cost.
func TestFillModel(t *testing.T) {
	t.Parallel()
	bodies := make(map[int]registrytest.Blob)
	rapid.Check(t, func(rt *rapid.T) {
		p := drawPlan(rt)
		b, ok := bodies[p.Size]
		if !ok {
			b = registrytest.NewBlob("", registrytest.Bytes(uint64(p.Size), p.Size))
			bodies[p.Size] = b
		}
		var err error
		synctest.Test(t, func(t *testing.T) { err = p.live(t, b) })
		if err != nil {
			rt.Fatalf("%+v: %v", p, err)
		}
	})
}

func (p plan) live(t *testing.T, b registrytest.Blob) error {
	m := mem.New()
	put(t, m, "app", b)
	o, body := registry.Object{Repo: "app", Digest: b.Desc.Digest}, b.Body
	sent := &meter{Reader: m}
	up := registrytest.NewFaulty(sent)
	var mu sync.Mutex
	over, corrupt, lost := false, false, int64(0)
	mishapOf := func(c registrytest.Call) (mishap, bool) {
		mu.Lock()
		defer mu.Unlock()
		if over || c.Op != "open" || c.N > len(p.Opens) {
			return mishap{At: -1}, false
		}
		return p.Opens[c.N-1], true
	}
	hook := func(after bool) func(c registrytest.Call) error {
		return func(c registrytest.Call) error {
			x, _ := mishapOf(c)
			if !after {
				time.Sleep(x.Delay)
			}
			if x.Class != registry.Internal && x.After == after {
				return registry.Errorf(x.Class, "mishap")
			}
			return nil
		}
	}
	up.Before, up.After = hook(false), hook(true)
	up.Body = func(c registrytest.Call) *registrytest.Fault {
		x, ok := mishapOf(c)
		if !ok || x.At < 0 {
			return nil
		}
		switch x.How {
		case 0:
			return &registrytest.Fault{At: x.At, Err: io.ErrUnexpectedEOF}
		case 1:
			return &registrytest.Fault{At: x.At, Truncate: true}
		case 2:
			return &registrytest.Fault{At: x.At, Stall: make(chan struct{})}
		}
		mu.Lock()
		corrupt = true
		mu.Unlock()
		return &registrytest.Fault{At: x.At, Corrupt: true}
	}

	dir := t.TempDir()
	s := openStore(t, storage.Options{Path: dir})
	var now atomic.Pointer[storage.Store] // no lock: time stands still while somebody waits for one
	now.Store(s)
	var errs []error
	fail := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, fmt.Errorf(format, args...))
	}
	var g sync.WaitGroup
	for i, v := range p.Readers {
		g.Go(func() {
			time.Sleep(v.When)
			c, err := now.Load().Over("m", up).Open(t.Context(), o, v.Range)
			if err != nil {
				return
			}
			defer c.Close()
			src := io.Reader(c)
			if v.Takes >= 0 {
				src = io.LimitReader(c, v.Takes)
			}
			got, err := io.ReadAll(src)
			clip, _ := v.Range.Clip(int64(p.Size))
			whole := int64(len(got)) == clip.Length
			mu.Lock()
			mayBeWrong := corrupt
			mu.Unlock()
			switch want := body[clip.Offset:]; {
			case int64(len(got)) > clip.Length:
				fail("reader %d: %d bytes of %d", i, len(got), clip.Length)
			case err == nil && v.Takes < 0 && !whole:
				fail("reader %d: ended well after %d bytes of %d", i, len(got), clip.Length)
			case bytes.Equal(got, want[:len(got)]):
			case !mayBeWrong:
				fail("reader %d: wrong bytes, although upstream sent none", i)
			case len(got) == p.Size:
				fail("reader %d: a complete body of wrong bytes", i)
			}
		})
	}
	if p.Close > 0 {
		time.Sleep(p.Close)
		if err := s.Close(); err != nil {
			return err
		}
		s = openStore(t, storage.Options{Path: dir})
		now.Store(s)
		lost = int64(p.Size) // what no full segment was made of
	}
	g.Wait()
	mu.Lock()
	over = true
	mu.Unlock()

	var err error
	for range 3 { // the fill that is under way, or left damage, may still fail
		var got []byte
		if got, err = read(t.Context(), s.Over("m", up), o, registry.Whole); err == nil {
			if !bytes.Equal(got, body) {
				fail("the last read: wrong bytes")
			}
			break
		}
	}
	if err != nil {
		fail("the last read: %w", err)
	}
	synctest.Wait()
	if !s.Has("m", o) {
		fail("the blob is not there at the end")
	}
	if n := sent.n.Load(); !corrupt && n > int64(p.Size)+lost {
		fail("upstream sent %d bytes of %d", n, p.Size)
	}
	if n := counters(t, s)["ecr_mirror_digest_mismatches_total"]; n > 0 && !corrupt {
		fail("upstream was blamed %v times for nothing", n)
	}
	if err := s.Close(); err != nil {
		fail("%w", err)
	}
	return errors.Join(errs...)
}
