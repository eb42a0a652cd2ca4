package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// model is what the source was, at every time: what each tag named, and which images there were. And all bytes by their digests.
type model struct {
	mu      sync.Mutex
	stays   map[string][]stay // by repo:tag, and by repo@digest
	content map[digest.Digest][]byte
	images  []stored
	results map[string]int // how operations ended
}

// stay is how long a tag named a digest, or an image was there: "" for not at all. While it is being written both the old and the new
// hold.
type stay struct {
	value    digest.Digest
	from, to time.Time // to is zero until something else has surely come
}

// stored is an image that was pushed to a repository, and may have been deleted.
type stored struct {
	repo, tag string
	node      registrytest.Node
}

func newModel() *model {
	return &model{stays: make(map[string][]stay), content: make(map[digest.Digest][]byte), results: make(map[string]int)}
}

// change has f bring about that key has value.
func (m *model) change(key string, value digest.Digest, f func() error) error {
	m.mu.Lock()
	if len(m.stays[key]) == 0 {
		m.stays[key] = []stay{{}}
	}
	m.stays[key] = append(m.stays[key], stay{value: value, from: time.Now()})
	m.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	now, all := time.Now(), m.stays[key]
	for i := range all[:len(all)-1] {
		if all[i].to.IsZero() {
			all[i].to = now
		}
	}
	return nil
}

// held reports whether key had value at some time from from to to.
func (m *model) held(key string, value digest.Digest, from, to time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.stays[key]
	if len(all) == 0 {
		return value == ""
	}
	return slices.ContainsFunc(all, func(s stay) bool {
		return s.value == value && !s.from.After(to) && (s.to.IsZero() || !s.to.Before(from))
	})
}

// know remembers bytes.
func (m *model) know(n registrytest.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.content[n.Desc.Digest] = n.Body
	for _, b := range n.Blobs {
		m.content[b.Desc.Digest] = b.Body
	}
}

func (m *model) bytes(d digest.Digest) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.content[d]
}

// pick returns one of the images that were pushed, the newer the likelier; false if there is none.
func (m *model) pick(r interface{ IntN(int) int }) (stored, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.images) == 0 {
		return stored{}, false
	}
	recent := m.images[max(0, len(m.images)-100):]
	return recent[r.IntN(len(recent))], true
}

func (m *model) add(i stored) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.images = append(m.images, i)
}

func (m *model) count(result string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.results[result]++
}

// counts says how often operations ended in each way.
func (m *model) counts() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for k, n := range m.results {
		all = append(all, fmt.Sprintf("%s %d", k, n))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
