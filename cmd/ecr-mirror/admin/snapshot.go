package admin

import (
	"context"
	"sync"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// A snapshot is what takes a look at every job and every metric. However many ask, it is taken every so often, and never for more
// than a twentieth of the time.
const (
	snapshotFor  = 2 * time.Second
	snapshotPart = 20
	maxLetters   = 100 // of either kind; the others are counted
)

type snapshot struct {
	At      time.Time
	Figures figures
	Queue   Queue
	Letters []DeadLetter
	More    int // dead letters that are not among them
	Err     string
}

// Queue is what waits.
type Queue struct {
	Lanes          []Lane  `json:"lanes"`
	Jobs           int     `json:"jobs"` // pending or being done
	Dead           int     `json:"dead"`
	Conflict       int     `json:"conflict"`
	Bytes          int64   `json:"bytes"` // that they will send, as far as it is known
	JobsPerSecond  float64 `json:"jobsPerSecond"`
	BytesPerSecond float64 `json:"bytesPerSecond"`
	LeftSeconds    float64 `json:"leftSeconds"` // negative: not known
}

// Lane is what waits in one lane.
type Lane struct {
	Name   string    `json:"name"`
	Jobs   int       `json:"jobs"`
	Oldest time.Time `json:"oldest,omitzero"` // when it was written down
}

// snapshots keeps the last one. Safe for concurrent use.
type snapshots struct {
	o Options
	d *deadLetters

	mu    sync.Mutex
	last  snapshot
	until time.Time
}

// get returns a snapshot that is a few seconds old at most.
func (s *snapshots) get(ctx context.Context) snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if began := time.Now(); began.After(s.until) {
		s.last = s.take(context.WithoutCancel(ctx))
		s.last.At = began
		s.until = time.Now().Add(max(snapshotFor, snapshotPart*time.Since(began)))
	}
	return s.last
}

// forget has the next get look anew: something was changed.
func (s *snapshots) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Time{}
}

func (s *snapshots) take(ctx context.Context) (n snapshot) {
	n.Figures = readFigures(s.o.Metrics)
	c := s.o.Queue.Pending()
	n.Queue = Queue{Jobs: c.Waiting(), Dead: c.Dead, Conflict: c.Conflict, Bytes: c.Bytes}
	for l, d := range c.Pending {
		n.Queue.Lanes = append(n.Queue.Lanes, Lane{registry.Lane(l).String(), d.Jobs, d.Oldest})
	}
	if s.o.Workers != nil {
		p := s.o.Workers.Progress()
		n.Queue.JobsPerSecond, n.Queue.BytesPerSecond, n.Queue.LeftSeconds = p.JobsPerSecond, p.BytesPerSecond, p.Left.Seconds()
	}
	if err := s.letters(ctx, &n); err != nil {
		n.Err = err.Error()
	}
	return n
}

// letters adds the first dead letters of either kind, and how many more there are.
func (s *snapshots) letters(ctx context.Context, n *snapshot) error {
	for j, err := range s.o.Queue.Dead(ctx) {
		if err != nil {
			return err
		}
		if n.Letters = append(n.Letters, ofJob(j)); len(n.Letters) == maxLetters {
			break
		}
	}
	n.More = max(0, n.Queue.Dead+n.Queue.Conflict-len(n.Letters))
	counts, err := s.o.Queue.LetterCounts()
	if err != nil {
		return err
	}
	shown := 0
	for l, err := range s.o.Queue.Letters(ctx) {
		if err != nil {
			return err
		}
		n.Letters = append(n.Letters, ofLetter(l))
		if shown++; shown == maxLetters {
			break
		}
	}
	n.More += max(0, counts.Kept-shown)
	return nil
}

// workers is what the page knows of replicate.Workers.
type workers interface {
	Active() []replicate.Active
	Progress() replicate.Progress
}
