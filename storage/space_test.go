package storage

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"
)

// TestSpace runs the accounts against a plain list, oldest first.
func TestSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const limit = 100
		type entry struct {
			it   *item
			size int64
			pins int32
			used bool // since it was saved
		}
		s := newSpace(limit, nil)
		var model []*entry
		used := func() (n int64) {
			for _, e := range model {
				n += e.size
			}
			return n
		}
		touch := func(e *entry) {
			for i := range model {
				if model[i] == e {
					model = append(append(model[:i:i], model[i+1:]...), e)
					return
				}
			}
		}
		pick := func(t *rapid.T) *entry {
			if len(model) == 0 {
				t.Skip("empty")
			}
			return rapid.SampledFrom(model).Draw(t, "entry")
		}
		// evict takes the oldest unpinned entries until at most target bytes are left.
		evict := func(target int64) (gone []*item) {
			var rest []*entry
			n := used()
			for _, e := range model {
				if n > target && e.pins == 0 {
					n -= e.size
					gone = append(gone, e.it)
				} else {
					rest = append(rest, e)
				}
			}
			model = rest
			return gone
		}
		same := func(t *rapid.T, got, want []*item) {
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("victims %v, want %v", got, want)
			}
		}
		n := 0
		var now time.Time
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				size, room := rapid.Int64Range(0, 120).Draw(t, "size"), rapid.Int64Range(-20, 120).Draw(t, "room")
				n++
				it, victims, err := s.reserve(key{digest: digest.Digest(fmt.Sprint(n))}, size, room, now)
				target := min(limit, used()+room) - size
				before := model
				gone := evict(target)
				switch {
				case size > limit:
					if model = before; !errors.Is(err, errTooLarge) {
						t.Fatalf("reserve %d: %v, want too large", size, err)
					}
				case used() > target:
					if model = before; !errors.Is(err, errNoRoom) {
						t.Fatalf("reserve %d: %v, want no room", size, err)
					}
				default:
					if err != nil {
						t.Fatalf("reserve %d of %d used: %v", size, used(), err)
					}
					same(t, victims, gone)
					model = append(model, &entry{it, size, 1, true})
				}
			},
			"pin": func(t *rapid.T) {
				e := pick(t)
				if it := s.pin(e.it.key, now); it != e.it {
					t.Fatalf("pin %v: %v", e.it, it)
				}
				e.pins++
				e.used = true
				touch(e)
			},
			"unpin": func(t *rapid.T) {
				if e := pick(t); e.pins > 0 {
					s.unpin(e.it)
					e.pins--
				}
			},
			"drop": func(t *rapid.T) {
				e := pick(t)
				s.drop(e.it)
				s.drop(e.it) // again does nothing
				touch(e)
				model = model[:len(model)-1]
			},
			"rekey": func(t *rapid.T) {
				e := pick(t)
				s.rekey(e.it, key{e.it.key.digest, !e.it.key.partial})
			},
			"shrink": func(t *rapid.T) {
				target := rapid.Int64Range(0, limit).Draw(t, "target")
				var gone []*item
				for n := 1; n == 1; { // one at a time
					victims := s.shrink(target, 1)
					gone, n = append(gone, victims...), len(victims)
				}
				same(t, gone, evict(target))
			},
			"save": func(t *rapid.T) {
				var want []*item
				for _, e := range model {
					if e.used {
						want = append([]*item{e.it}, want...)
						e.used = false
					}
				}
				same(t, s.unsaved(), want)
			},
			"restart": func(t *rapid.T) { // finds what is there, nobody reading, all of it saved
				var found []*item
				for _, e := range model {
					e.it = &item{key: e.it.key, size: e.size}
					e.pins, e.used = 0, false
					found = append(found, e.it)
				}
				s = newSpace(limit, found)
			},
			"": func(t *rapid.T) {
				if s.used != used() || s.used > limit || len(s.complete)+len(s.partial) != len(model) {
					t.Fatalf("%d bytes in %d items, want %d in %d, at most %d", s.used, len(s.complete)+len(s.partial), used(), len(model), limit)
				}
				it := s.ring.prev
				for _, e := range model {
					if it != e.it || it.prev.next != it {
						t.Fatalf("in the ring: %v, want %v", it, e.it)
					}
					it = it.prev
					if s.item(e.it.key) != e.it || e.it.pins != e.pins {
						t.Fatalf("item %v: booked as %v", e.it, s.item(e.it.key))
					}
				}
			},
		})
	})
}
