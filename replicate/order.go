package replicate

import (
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
}

// order is the pending jobs that are not leased, per lane by NextAt.
type order [lanes]lane

// next removes and returns the job to do now, or returns how long until there may be one; 0: nothing is waiting.
func (o *order) next(now time.Time) (e *entry, wait time.Duration) {
	for i := range o {
		l := &o[i]
		if len(*l) == 0 {
			continue
		}
		d := (*l)[0].job.NextAt.Sub(now)
		if d <= 0 {
			return heap.Pop(l).(*entry), 0
		}
		if wait == 0 || d < wait {
			wait = d
		}
	}
	return nil, wait
}

// place puts e where it now belongs: in its lane when it waits, else nowhere.
func (o *order) place(e *entry) {
	o.remove(e)
	if e.job.State == Pending && !e.leased {
		e.lane = e.job.Lane
		heap.Push(&o[e.lane], e)
	}
}

func (o *order) remove(e *entry) {
	if e.at >= 0 {
		heap.Remove(&o[e.lane], e.at)
	}
}

// lane implements heap.Interface.
type lane []*entry

func (l lane) Len() int           { return len(l) }
func (l lane) Less(i, j int) bool { return l[i].job.NextAt.Before(l[j].job.NextAt) }
func (l lane) Swap(i, j int)      { l[i], l[j] = l[j], l[i]; l[i].at, l[j].at = i, j }
func (l *lane) Push(x any)        { e := x.(*entry); e.at = len(*l); *l = append(*l, e) }

func (l *lane) Pop() any {
	last := len(*l) - 1
	e := (*l)[last]
	(*l)[last], *l = nil, (*l)[:last]
	e.at = -1
	return e
}
