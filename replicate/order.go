package replicate

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const lanes = registry.LaneBackfill + 1

// entry is a job of the queue in memory. The queue's mu guards it.
type entry struct {
	job    Job // as stored: State is never Leased
	leased bool
	again  bool // put while it was leased: run once more
	at     int  // position in its lane's heap, -1 outside
	lane   registry.Lane
	// unwritten counts the ends of its leases that the file did not take, one after another.
	unwritten int
}

// order is the pending jobs that are not leased, per lane by NextAt.
type order struct {
	lanes  [lanes]lane
	passed int // jobs handed out since the last that had waited too long
}

// The lowest lane goes first, but one job of so many is the one that has waited the longest, if that is too long: no lane
// starves while a lower one never runs dry.
const (
	agedShare = 8
	agedAfter = time.Minute
)

// next removes and returns the job to do now, of lanes up to highest, or returns how long until there may be one; 0: nothing
// is waiting.
func (o *order) next(now time.Time, highest registry.Lane) (e *entry, wait time.Duration) {
	lowest, oldest := -1, -1
	for i := range o.lanes[:highest+1] {
		l := o.lanes[i]
		if len(l) == 0 {
			continue
		}
		if d := l[0].job.NextAt.Sub(now); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		if lowest < 0 {
			lowest = i
		}
		if since := l[0].since(); now.Sub(since) >= agedAfter && (oldest < 0 || since.Before(o.lanes[oldest][0].since())) {
			oldest = i
		}
	}
	switch {
	case lowest < 0:
		return nil, wait
	case oldest >= 0 && o.passed >= agedShare-1:
		lowest, o.passed = oldest, 0
	case oldest >= 0:
		o.passed++
	}
	return heap.Pop(&o.lanes[lowest]).(*entry), 0
}

// since is when the job began to wait for its turn. NextAt may be long before that: a sweep's jobs have the time of the push.
func (e *entry) since() time.Time {
	if e.job.NextAt.Before(e.job.Created) {
		return e.job.Created
	}
	return e.job.NextAt
}

// place puts e where it now belongs: in its lane when it waits, else nowhere.
func (o *order) place(e *entry) {
	o.remove(e)
	if e.job.State == Pending && !e.leased {
		e.lane = e.job.Lane
		heap.Push(&o.lanes[e.lane], e)
	}
}

func (o *order) remove(e *entry) {
	if e.at >= 0 {
		heap.Remove(&o.lanes[e.lane], e.at)
	}
}

// lane implements heap.Interface.
type lane []*entry

func (l lane) Len() int { return len(l) }
func (l lane) Less(i, j int) bool { // jobs that were postponed together stay in the order of their pushes
	return cmp.Or(l[i].job.NextAt.Compare(l[j].job.NextAt), l[i].job.SeenAt.Compare(l[j].job.SeenAt)) < 0
}
func (l lane) Swap(i, j int) { l[i], l[j] = l[j], l[i]; l[i].at, l[j].at = i, j }
func (l *lane) Push(x any)   { e := x.(*entry); e.at = len(*l); *l = append(*l, e) }

func (l *lane) Pop() any {
	last := len(*l) - 1
	e := (*l)[last]
	(*l)[last], *l = nil, (*l)[:last]
	e.at = -1
	return e
}
