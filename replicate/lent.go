package replicate

import "context"

// A lent job is somebody else's: a queue that several replicas share keeps it until this one says that it is over. So it is
// not in this replica's file, where nobody else would find it.

// Settle returns nil when none of keys is a job to be done: each was done, or given up and written down as that. It is for
// who lent them. A closed queue is Unavailable.
func (q *Queue) Settle(ctx context.Context, keys ...Key) error {
	for {
		q.mu.Lock()
		over := true
		for _, k := range keys {
			e := q.entries[k]
			over = over && (e == nil || !e.leased && e.job.State != Pending)
		}
		closed, wake := q.closed, q.wake
		q.mu.Unlock()
		switch {
		case over:
			return nil
		case closed:
			return errClosed()
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stalled counts the images and tags of the mirror of which a lent job failed and waits for another attempt: what keeps nobody
// busy. An event is about one of them, however many destinations it has a job for.
func (q *Queue) Stalled(mirror string) int {
	stalled := make(map[Key]struct{})
	q.mu.Lock()
	defer q.mu.Unlock()
	for k := range q.lent {
		if e := q.entries[k]; k.Mirror == mirror && !e.leased && e.job.Attempts > 0 {
			k.Destination = ""
			stalled[k] = struct{}{}
		}
	}
	return len(stalled)
}
