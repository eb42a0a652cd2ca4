package storage

import (
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	fillStreams    = 16 // ranged reads of one fill at once, at most,
	eventStreams   = 4  // when an event waits, not a client,
	sweepStreams   = 2  // when nobody does,
	hostStreams    = 32 // of one upstream host,
	processStreams = 64 // and of all
)

// slots bounds how many ranged reads run at once. Fills of one host share its bound evenly, and each may always have one
// stream. A stream that its successor already stands in for is not counted: see stream.
type slots struct {
	mu    sync.Mutex
	hosts map[string]*hostSlots
	total int
}

type hostSlots struct{ fills, streams int }

// enter notes that a fill of host begins; leave that it ends.
func (s *slots) enter(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts == nil {
		s.hosts = make(map[string]*hostSlots)
	}
	if s.hosts[host] == nil {
		s.hosts[host] = &hostSlots{}
	}
	s.hosts[host].fills++
}

func (s *slots) leave(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hosts[host].fills--; s.hosts[host].fills == 0 {
		delete(s.hosts, host)
	}
}

// take asks for one more stream for a fill of host that has mine.
func (s *slots) take(host string, mine int, l registry.Lane) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	if mine > 0 && (mine >= streamsOf(l) || mine >= hostStreams/h.fills || h.streams >= hostStreams || s.total >= processStreams) {
		return false
	}
	h.streams++
	s.total++
	return true
}

func (s *slots) give(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hosts[host].streams--
	s.total--
}

func streamsOf(l registry.Lane) int {
	switch l {
	case registry.LaneClient:
		return fillStreams
	case registry.LaneEvent:
		return eventStreams
	}
	return sweepStreams
}
