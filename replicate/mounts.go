package replicate

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// mounts remembers where at a destination a blob is, so that another repository can have it from there without its bytes
// crossing a region or being sent again. It is a hint: a repository that was deleted since costs one question.
type mounts struct {
	mu       sync.Mutex
	at       *lru.Cache[mountable, string] // repository; nil until the first
	declined map[string]time.Time          // by destination: when it last would not mount
}

type mountable struct {
	destination string
	blob        digest.Digest
}

const (
	maxMounts = 1 << 15          // blobs remembered
	mountRest = 10 * time.Minute // a destination that would not mount is not asked for so long
)

// note is told that manifests in a repository of the destination refer to the blobs: registries mount no others.
func (m *mounts) note(destination, repo string, blobs []digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at, _ = lru.New[mountable, string](maxMounts) // fails only for a size below 1
	}
	for _, b := range blobs {
		m.at.Add(mountable{destination, b}, repo)
	}
}

// from returns a repository, other than repo, to mount the blob from; "" when none is known or the destination declines.
func (m *mounts) from(destination, repo string, blob digest.Digest, now time.Time) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last, ok := m.declined[destination]; m.at == nil || ok && now.Sub(last) < mountRest {
		return ""
	}
	if from, ok := m.at.Get(mountable{destination, blob}); ok && from != repo {
		return from
	}
	return ""
}

// decline notes that the destination would not.
func (m *mounts) decline(destination string, blob digest.Digest, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at.Remove(mountable{destination, blob})
	if m.declined == nil {
		m.declined = make(map[string]time.Time)
	}
	m.declined[destination] = now
}
