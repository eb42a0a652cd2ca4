package replicate

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Active is a job that is being done.
type Active struct {
	Job
	Since time.Time // when this attempt began
	Sent  int64     // bytes of blobs in this attempt
	Total int64     // that it has to send, as far as is known: manifests are read one after another
}

// active are the jobs in work. The zero value is ready. Safe for concurrent use.
type active struct {
	mu   sync.Mutex
	jobs map[Key]*attempt
}

type attempt struct {
	job         Job
	since       time.Time
	sent, total atomic.Int64
}

func (a *active) begin(j Job, now time.Time) *attempt {
	t := &attempt{job: j, since: now}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.jobs == nil {
		a.jobs = make(map[Key]*attempt)
	}
	a.jobs[j.Key] = t
	return t
}

func (a *active) end(k Key) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.jobs, k)
}

// Active returns the jobs that are being done, the one that began first first.
func (w *Workers) Active() (all []Active) {
	w.active.mu.Lock()
	defer w.active.mu.Unlock()
	for _, t := range w.active.jobs {
		sent := t.sent.Load()
		all = append(all, Active{Job: t.job, Since: t.since, Sent: sent, Total: max(sent, t.total.Load())})
	}
	slices.SortFunc(all, func(a, b Active) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Key.ID(), b.Key.ID()))
	})
	return all
}
