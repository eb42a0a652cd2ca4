package storage

import (
	"container/list"
	"errors"
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

// item is one file in the accounts. Its fields are the space's; whoever holds a pin may keep the pointer.
type item struct {
	key    key
	size   int64 // bytes reserved: of a partial object, what it will have
	pins   int   // open readers, and the fill that writes it
	access time.Time
	dirty  bool          // access has not been saved yet
	elem   *list.Element // nil once dropped
}

// space is the store's book of bytes: what is there, how long unused, and what must go for something new. It does no I/O
// and has no lock: Store.mu guards it. used never exceeds limit through reserve.
type space struct {
	limit, used int64
	items       map[key]*item
	lru         *list.List // of *item; front is the one used last
}

func newSpace(limit int64) *space {
	return &space{limit: limit, items: make(map[key]*item), lru: list.New()}
}

// add books a file found at start-up, unpinned, whatever the limit. Files come oldest first.
func (s *space) add(k key, size int64, access time.Time) *item {
	it := &item{key: k, size: size, access: access}
	it.elem = s.lru.PushFront(it)
	s.items[k] = it
	s.used += size
	return it
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
	for e := s.lru.Back(); e != nil && over > 0; e = e.Prev() {
		if v := e.Value.(*item); v.pins == 0 {
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
	it = s.add(k, size, now)
	it.pins, it.dirty = 1, true
	return it, victims, nil
}

// shrink drops the longest unused files until at most target bytes are booked, or all that is left is pinned.
func (s *space) shrink(target int64) (victims []*item) {
	for e := s.lru.Back(); e != nil && s.used > target; {
		v := e.Value.(*item)
		e = e.Prev()
		if v.pins == 0 {
			s.drop(v)
			victims = append(victims, v)
		}
	}
	return victims
}

// pin keeps k from being evicted and notes that it was used; nil when it is not there.
func (s *space) pin(k key, now time.Time) *item {
	it := s.items[k]
	if it != nil {
		s.again(it, now)
	}
	return it
}

// again pins an item that the caller has pinned already.
func (s *space) again(it *item, now time.Time) {
	it.pins++
	it.access, it.dirty = now, true
	if it.elem != nil {
		s.lru.MoveToFront(it.elem)
	}
}

func (s *space) unpin(it *item) { it.pins-- }

// drop takes it out of the books; its pins may still be returned.
func (s *space) drop(it *item) {
	if it.elem == nil {
		return
	}
	s.lru.Remove(it.elem)
	it.elem = nil
	delete(s.items, it.key)
	s.used -= it.size
}

// rekey books it under another key, pins and all; what was there before is dropped.
func (s *space) rekey(it *item, k key) {
	if it.elem == nil || it.key == k {
		return
	}
	if old := s.items[k]; old != nil {
		s.drop(old)
	}
	delete(s.items, it.key)
	it.key, it.dirty = k, true
	s.items[k] = it
}
