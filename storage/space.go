package storage

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	errTooLarge = errors.New("larger than the cache")             // waiting does not help
	errNoRoom   = errors.New("no room: everything is being read") // waiting may help
)

// key names a file of the store: a complete object, or the partial one of a fill.
type key struct {
	digest  digest.Digest
	partial bool
}

// item is one file in the accounts. Its fields are the space's; whoever holds a pin may keep the pointer. There may be
// millions: with its digest and its place in the map an item takes about 200 bytes.
type item struct {
	key        key
	size       int64 // bytes reserved: of a partial object, what it will have
	access     int64 // Unix nanoseconds
	prev, next *item // in the ring of all items; nil once dropped
	pins       int32 // open readers, and the fill that writes it
	dirty      bool  // access has not been saved yet
}

// booked reports whether it has not been dropped.
func (it *item) booked() bool { return it.next != nil }

// space is the store's book of bytes: what is there, how long unused, and what must go for something new. It does no I/O
// and has no lock: Store.mu guards it. used never exceeds limit through reserve.
type space struct {
	limit, used       int64
	complete, partial map[digest.Digest]*item
	ring              item // ring.next is the item used last, ring.prev the one longest unused
}

// newSpace returns the book of up to limit bytes, with the files found at start-up, whatever the limit.
func newSpace(limit int64, found []*item) *space {
	s := &space{limit: limit, complete: make(map[digest.Digest]*item, len(found)), partial: make(map[digest.Digest]*item)}
	s.ring.prev, s.ring.next = &s.ring, &s.ring
	var mapped sync.WaitGroup
	mapped.Go(func() { // beside the sorting: either takes a while when there are a million
		for _, it := range found {
			s.of(it.key)[it.key.digest] = it
		}
	})
	type used struct {
		at int64 // of it: to be near when a million are compared
		it *item
	}
	order := make([]used, len(found))
	for i, it := range found {
		order[i] = used{it.access, it}
	}
	slices.SortFunc(order, func(a, b used) int { return cmp.Compare(a.at, b.at) })
	for _, u := range order {
		it := u.it
		s.front(it)
		s.used += it.size
	}
	mapped.Wait()
	return s
}

func (s *space) of(k key) map[digest.Digest]*item {
	if k.partial {
		return s.partial
	}
	return s.complete
}

// item returns what is booked for k, or nil.
func (s *space) item(k key) *item { return s.of(k)[k.digest] }

func (s *space) add(it *item) {
	s.front(it)
	s.of(it.key)[it.key.digest] = it
	s.used += it.size
}

// front makes it the item used last.
func (s *space) front(it *item) {
	if it.booked() {
		it.prev.next, it.next.prev = it.next, it.prev
	}
	it.prev, it.next = &s.ring, s.ring.next
	it.prev.next, it.next.prev = it, it
}

// reserve books size bytes for k, which is not booked yet, pinned once. room is how many bytes the filesystem can still
// take beyond what is booked. The victims are no longer booked: the caller removes their files. On an error nothing
// changed.
func (s *space) reserve(k key, size, room int64, now time.Time) (it *item, victims []*item, err error) {
	limit := s.limit
	if room < limit-s.used {
		limit = s.used + room
	}
	if size > s.limit {
		return nil, nil, errTooLarge
	}
	over := s.used + size - limit
	for v := s.ring.prev; v != &s.ring && over > 0; v = v.prev {
		if v.pins == 0 {
			victims = append(victims, v)
			over -= v.size
		}
	}
	if over > 0 {
		return nil, nil, errNoRoom
	}
	for _, v := range victims {
		s.drop(v)
	}
	it = &item{key: k, size: size, access: now.UnixNano(), pins: 1, dirty: true}
	s.add(it)
	return it, victims, nil
}

// shrink drops the longest unused files, at most most of them, until at most target bytes are booked, or all that is left is
// pinned.
func (s *space) shrink(target int64, most int) (victims []*item) {
	for v := s.ring.prev; v != &s.ring && s.used > target && len(victims) < most; {
		older := v
		v = v.prev
		if older.pins == 0 {
			s.drop(older)
			victims = append(victims, older)
		}
	}
	return victims
}

// pin keeps k from being evicted and notes that it was used; nil when it is not there.
func (s *space) pin(k key, now time.Time) *item {
	it := s.item(k)
	if it != nil {
		s.again(it, now)
	}
	return it
}

// again pins an item that the caller has pinned already.
func (s *space) again(it *item, now time.Time) {
	it.pins++
	it.access, it.dirty = now.UnixNano(), true
	if it.booked() {
		s.front(it)
	}
}

func (s *space) unpin(it *item) { it.pins-- }

// drop takes it out of the books; its pins may still be returned.
func (s *space) drop(it *item) {
	if !it.booked() {
		return
	}
	it.prev.next, it.next.prev = it.next, it.prev
	it.prev, it.next = nil, nil
	delete(s.of(it.key), it.key.digest)
	s.used -= it.size
}

// rekey books it under another key, pins and all; what was there before is dropped.
func (s *space) rekey(it *item, k key) {
	if !it.booked() || it.key == k {
		return
	}
	if old := s.item(k); old != nil {
		s.drop(old)
	}
	delete(s.of(it.key), it.key.digest)
	it.key = k
	s.of(k)[k.digest] = it
}

// unsaved returns the items that were used since it was last called. They stand together at the front of the ring, however
// many there are behind them.
func (s *space) unsaved() (used []*item) {
	for it := s.ring.next; it != &s.ring && it.dirty; it = it.next {
		it.dirty = false
		used = append(used, it)
	}
	return used
}
