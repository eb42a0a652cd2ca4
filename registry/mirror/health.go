package mirror

import "time"

// Health is how the road to an upstream is.
type Health struct {
	Name       string    // source or destination
	State      string    // one of those below
	Since      time.Time // of the first call in a row without an answer; zero: the last was answered
	AnsweredAt time.Time // of the last call that was answered; zero: none was yet
	Err        string    // the last failure, if Since is set
}

// States of Health.
const (
	Unknown = "unknown" // nothing was asked of it lately
	Up      = "up"      // it answered, a short while ago
	Down    = "down"    // it did not
	Left    = "left alone"
)

// Health reports on the upstreams, the source first.
func (m *Mirror) Health() []Health {
	all := []Health{m.source.health()}
	for _, u := range m.upstreams() {
		if u != m.source {
			all = append(all, u.health())
		}
	}
	return all
}

func (u *Upstream) health() Health {
	h := Health{Name: u.name, State: Unknown}
	switch {
	case u.breaker.open(u.now()):
		h.State = Left
	case u.down():
		h.State = Down
	case u.up():
		h.State = Up
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	h.Since, h.AnsweredAt = u.since, u.okAt
	if u.silence != nil {
		h.Err = u.silence.Error()
	}
	return h
}
