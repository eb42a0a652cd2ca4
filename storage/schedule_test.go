package storage

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestSchedule drives a schedule as streams and readers do: every byte has one owner at a time and is brought once, what a
// reader waits for comes next, and all bytes come.
func TestSchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const unit = segmentSize / 8
		units := rapid.Int64Range(1, 40*8).Draw(t, "units")
		size := units * unit
		there := rapid.SliceOfN(rapid.Byte(), 5, 5).Draw(t, "bits")
		s := newSchedule(size, there)
		brought := make([]int, units)
		for i := range brought {
			if seg := i / 8; there[seg/8]&(1<<(seg%8)) != 0 {
				brought[i] = 1
			}
		}
		var runs []*run
		claim := func(all bool) bool {
			i, _, urgent := s.urgent()
			r, ok := s.next(rapid.Int64Range(1, 10).Draw(t, "max")*segmentSize, all)
			if !ok {
				return false
			}
			if urgent && r.at/segmentSize != int64(i) {
				t.Fatalf("a reader waits for segment %d, claimed byte %d", i, r.at)
			}
			if r.at >= r.end || s.has(r.at) {
				t.Fatalf("claimed %+v", *r)
			}
			for _, o := range runs {
				if r.at < o.end && o.at < r.end {
					t.Fatalf("%+v has two owners: %+v", *r, *o)
				}
			}
			runs = append(runs, r)
			return true
		}
		bring := func(r *run, n int64) {
			for i := r.at / unit; i < (r.at+n)/unit; i++ {
				brought[i]++
			}
			s.got(r, n)
		}
		some := func(t *rapid.T) *run {
			if len(runs) == 0 {
				t.Skip("no run")
			}
			return rapid.SampledFrom(runs).Draw(t, "run")
		}
		drop := func(r *run) { runs = slices.DeleteFunc(runs, func(o *run) bool { return o == r }) }
		t.Repeat(map[string]func(*rapid.T){
			"claim": func(t *rapid.T) { claim(rapid.Bool().Draw(t, "all")) },
			"bring": func(t *rapid.T) {
				r := some(t)
				bring(r, rapid.Int64Range(1, (r.end-r.at)/unit).Draw(t, "n")*unit)
				if r.at == r.end {
					drop(r)
				}
			},
			"break": func(t *rapid.T) { r := some(t); s.release(r); drop(r) },
			"wait": func(t *rapid.T) {
				pos := rapid.Int64Range(0, units-1).Draw(t, "pos")
				end := rapid.Int64Range(pos+1, units).Draw(t, "end")
				s.waits = append(s.waits, &wait{pos * unit, end * unit})
			},
			"leave": func(t *rapid.T) {
				if len(s.waits) > 0 {
					s.forget(s.waits[rapid.IntRange(0, len(s.waits)-1).Draw(t, "reader")])
				}
			},
			"": func(t *rapid.T) {
				var left int64
				for i, n := range brought {
					if n > 1 || (n == 1) != s.has(int64(i)*unit) {
						t.Fatalf("unit %d was brought %d times, has %v", i, n, s.has(int64(i)*unit))
					}
					if n == 0 {
						left += unit
					}
				}
				if left != s.left {
					t.Fatalf("left %d, want %d", s.left, left)
				}
			},
		})
		for s.left > 0 { // it ends, complete
			if !claim(true) && len(runs) == 0 {
				t.Fatalf("stuck with %d bytes left", s.left)
			}
			r := runs[0]
			bring(r, r.end-r.at)
			drop(r)
		}
		if again := newSchedule(size, s.bits()); again.left != 0 || s.avail(0) != size {
			t.Fatalf("complete, but %d bytes left after a restart", again.left)
		}
	})
}

// TestScheduleOrder shows what is fetched first.
func TestScheduleOrder(t *testing.T) {
	const m = segmentSize
	s := newSchedule(10*m, nil)
	want := func(all bool, max, at, end int64) {
		t.Helper()
		r, ok := s.next(max, all)
		if !ok || r.at != at || r.end != end {
			t.Errorf("next: %+v, %v; want %d to %d", r, ok, at, end)
		}
	}
	if _, ok := s.next(m, false); ok {
		t.Error("something to fetch although nobody waits")
	}
	s.waits = []*wait{{8*m + 5, 8*m + 10}, {2 * m, 4 * m}}
	want(false, 8*m, 8*m, 9*m)
	want(false, 8*m, 2*m, 4*m)
	want(true, m, 9*m, 10*m) // follows who waits longest
	want(true, 4*m, 0, 2*m)
	want(true, 4*m, 4*m, 8*m)
}
