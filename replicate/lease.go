package replicate

import (
	"context"
	"fmt"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// A job is leased for one attempt; Done, Fail, Release or Postpone end the lease.

// Lease waits for a job that is due and hands it out: the most urgent lane first, in it the longest due; but every eighth is
// the one that waited longest, if that is a minute. The caller ends the lease with Done, Fail or Release. No key is leased
// twice at a time. A closed queue is Unavailable.
func (q *Queue) Lease(ctx context.Context) (Job, error) { return q.lease(ctx, lanes-1) }

// lease is Lease of lanes up to highest.
func (q *Queue) lease(ctx context.Context, highest registry.Lane) (Job, error) {
	for {
		if err := ctx.Err(); err != nil {
			return Job{}, err
		}
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return Job{}, errClosed()
		}
		e, wait := q.order.next(time.Now(), highest)
		if e != nil {
			e.leased, e.again = true, false
			j := e.job
			q.mu.Unlock()
			j.State = Leased
			return j, nil
		}
		wake := q.wake
		q.mu.Unlock()
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-due:
		}
	}
}

// Postpone ends the lease of a job that has to wait, through no fault of its own: it is pending again, nothing counted, and not
// tried for d. After a restart, or if it was put meanwhile, it may be tried earlier.
func (q *Queue) Postpone(j Job, d time.Duration) { q.release(j, d) }

// Release ends the lease of a job that was not done, through no fault of its own: it is pending again, nothing counted.
func (q *Queue) Release(j Job) { q.release(j, 0) }

func (q *Queue) release(j Job, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e := q.entries[j.Key]
	if e == nil || !e.leased || q.closed {
		return
	}
	if delay > 0 && !e.again { // else what was put may be more urgent
		e.job.NextAt = time.Now().Add(delay)
	}
	e.leased, e.again = false, false
	q.order.place(e)
	close(q.wake)
	q.wake = make(chan struct{})
}

// Done ends the lease of a job that was done, and files its receipts in the same write. The job leaves the queue, or is
// pending again if it was put meanwhile. On an error (the file cannot be written) it is pending again after a delay.
func (q *Queue) Done(j Job, receipts ...Receipt) error { return q.done(j, 0, receipts) }

// done is Done; with a delay the job is pending again after that.
func (q *Queue) done(j Job, again time.Duration, receipts []Receipt) error {
	for _, r := range receipts {
		if err := r.Key.Validate(); err != nil {
			return fmt.Errorf("receipt: %w", err)
		}
	}
	err := q.commit(func(b *batch) {
		d := b.at(j.Key)
		if !d.leased || d.ended {
			return
		}
		d.ended = true
		if d.again || again > 0 {
			d.job.State, d.job.NextAt = Pending, time.Now().Add(again)
		} else {
			d.exists = false
		}
		for _, r := range receipts {
			if old, ok := b.receipts[r.Key]; !ok || old.Found || old.Digest != r.Digest {
				b.receipts[r.Key] = r
			}
		}
	})
	if err != nil {
		q.unwritten(j)
	}
	return err
}

// Fail ends the lease of a job that failed with cause and returns what became of it: pending after a delay, dead, or
// conflict; see verdict. On an error (the file cannot be written) it is pending again after a delay.
func (q *Queue) Fail(j Job, cause error) (Job, error) {
	out := j
	err := q.commit(func(b *batch) {
		d := b.at(j.Key)
		if !d.leased || d.ended {
			return
		}
		d.ended = true
		if d.job.Hint == j.Hint { // else a newer push was put meanwhile, which this failure says nothing about
			d.job = q.verdict(d.job, cause, d.again, time.Now())
			d.job.Lent = d.job.Lent && d.job.State == Pending
		}
		out = d.job
	})
	if err != nil {
		q.unwritten(j)
	}
	return out, err
}

// unwritten ends the lease of a job whose end the file did not take: it is pending again after a delay that grows as that of jobs
// that fail, for a full disk may have room again in a moment.
func (q *Queue) unwritten(j Job) {
	q.mu.Lock()
	n := 1
	if e := q.entries[j.Key]; e != nil {
		e.unwritten++
		n = e.unwritten
	}
	q.mu.Unlock()
	q.release(j, q.delay(n, nil))
}
