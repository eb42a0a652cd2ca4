package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// The store against a model of it: a list of what it holds, longest unused first. Everything happens one step at a time here;
// what happens at once is TestEvictionUnderReaders'.
type model struct {
	limit int64
	held  []*entry
}

type entry struct {
	object  int
	size    int64
	partial bool
	pins    int32
	access  time.Time
	saved   time.Time // access, as the next start will know it
	unsaved bool
}

func (m *model) find(object int) *entry {
	for _, e := range m.held {
		if e.object == object {
			return e
		}
	}
	return nil
}

func (m *model) used() (n int64) {
	for _, e := range m.held {
		n += e.size
	}
	return n
}

func (m *model) touch(e *entry) {
	m.held = append(slices.DeleteFunc(m.held, func(x *entry) bool { return x == e }), e)
	e.access, e.unsaved = time.Now(), true
}

// evict takes unpinned entries, longest unused first, until at most target bytes are left.
func (m *model) evict(target int64) {
	n := m.used()
	m.held = slices.DeleteFunc(m.held, func(e *entry) bool {
		gone := n > target && e.pins == 0
		if gone {
			n -= e.size
		}
		return gone
	})
}

// reserve makes room for an object and books it; nil when there is none.
func (m *model) reserve(object int, size int64) *entry {
	before := slices.Clone(m.held)
	m.evict(m.limit - size)
	if m.used()+size > m.limit {
		m.held = before
		return nil
	}
	e := &entry{object: object, size: size, partial: true, pins: 1}
	m.touch(e)
	return e
}

func (m *model) complete(e *entry) {
	e.partial = false
	e.pins--
	e.saved = time.Now()
}

func (m *model) save() {
	for _, e := range m.held {
		if e.unsaved && !e.partial {
			e.saved = e.access
		}
		e.unsaved = false
	}
}

// TestEvictionModel takes random steps. Open readers pin, downloads never leave, what was used longest ago leaves first, also after
// a restart, what is booked is what is on the disk and never more than the limit, and whoever reads gets the right bytes.
func TestEvictionModel(t *testing.T) {
	base := memoryDir(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{rapid.SampledFrom([]string{"open", "open", "open", "open slowly", "go on", "read", "read", "close", "close",
				"save", "make room", "restart", "kill"}).Draw(t, "what"), rapid.IntRange(0, 7).Draw(t, "object")}
		}), 1, 20).Draw(rt, "steps")
		n++
		dir := filepath.Join(base, fmt.Sprint(n))
		var err error
		synctest.Test(t, func(t *testing.T) {
			var s *subject
			if s, err = newSubject(dir); err == nil {
				err = s.run(steps)
				s.close()
			}
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// memoryDir is a directory in memory, where there is one: it takes long to make a thousand stores durable.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "ecr-mirror-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
