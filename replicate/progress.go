package replicate

import (
	"sync"
	"time"
)

// Progress says how far the workers are, from what is really left.
type Progress struct {
	Jobs  int   // that wait or are being done
	Bytes int64 // that they will send as far as sweeps know; what events ask for is not known before it is read

	JobsPerSecond  float64 // of the last minutes in which there was work
	BytesPerSecond float64

	// Left is how long this takes at that speed, by jobs or by bytes, whichever is longer. Negative: not known, for nothing
	// was done lately.
	Left time.Duration
}

// Progress tells how far the workers are. It looks at every job.
func (w *Workers) Progress() Progress {
	c := w.o.Queue.Pending()
	p := Progress{Jobs: c.Waiting(), Bytes: c.Bytes}
	p.JobsPerSecond, p.BytesPerSecond = w.speed.rates(w.o.Now())
	switch {
	case p.Jobs == 0:
	case p.JobsPerSecond == 0:
		p.Left = -1
	default:
		seconds := float64(p.Jobs) / p.JobsPerSecond
		if p.BytesPerSecond > 0 {
			seconds = max(seconds, float64(p.Bytes)/p.BytesPerSecond)
		}
		p.Left = time.Duration(min(seconds, maxLeft.Seconds()) * float64(time.Second))
	}
	return p
}

// maxLeft is where an estimate is no more than "very long".
const maxLeft = 365 * 24 * time.Hour

// speed counts what was done in the last minutes. Idle time does not count: after it, counting begins anew. Safe for concurrent use.
type speed struct {
	mu    sync.Mutex
	slots [30]slot
	busy  int       // jobs in work
	since time.Time // counting began
	idle  time.Time // the last job in work ended
}

// slot is what was done in one slotTime.
type slot struct {
	n           int64 // which, since the zero time of the clock
	jobs, bytes int64
}

const slotTime = 10 * time.Second

func (s *speed) begin(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == 0 && now.Sub(s.idle) > slotTime {
		s.slots, s.since = [len(s.slots)]slot{}, now
	}
	s.busy++
}

// end counts a job whose work is over; done: it left the queue.
func (s *speed) end(now time.Time, done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy--; s.busy == 0 {
		s.idle = now
	}
	if done {
		s.slot(now).jobs++
	}
}

func (s *speed) sent(now time.Time, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.slot(now).bytes += bytes
}

func (s *speed) slot(now time.Time) *slot {
	n := now.UnixNano() / int64(slotTime)
	c := &s.slots[n%int64(len(s.slots))]
	if c.n != n {
		*c = slot{n: n}
	}
	return c
}

// rates returns jobs and bytes per second.
func (s *speed) rates(now time.Time) (jobs, bytes float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := now.UnixNano()/int64(slotTime) - int64(len(s.slots)) + 1
	for _, c := range s.slots {
		if c.n >= first {
			jobs += float64(c.jobs)
			bytes += float64(c.bytes)
		}
	}
	window := min(now.Sub(s.since), time.Duration(len(s.slots))*slotTime)
	seconds := max(window, time.Second).Seconds()
	return jobs / seconds, bytes / seconds
}
