package replicate

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// change is one caller's edit of the queue, waiting to be written.
type change struct {
	edit func(*batch)
	done chan error
}

// commit has edit written durably and then seen. While one write waits for its fsync, further callers gather; the next
// write takes all of them, so the disk's fsyncs per second do not bound the jobs per second. Edits of one batch run one
// after another, in order of arrival, and see each other. On an error nothing of the batch has happened.
func (q *Queue) commit(edit func(*batch)) error {
	c := &change{edit, make(chan error, 1)}
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return errClosed()
	}
	q.gathered = append(q.gathered, c)
	q.mu.Unlock()

	q.commits.Lock()
	q.mu.Lock()
	all := q.gathered
	q.gathered = nil
	q.mu.Unlock()
	if len(all) > 0 { // else the write before took this one along
		err := q.write(all)
		for _, c := range all {
			c.done <- err
		}
	}
	q.commits.Unlock()
	return <-c.done
}

func errClosed() error { return registry.Errorf(registry.Unavailable, "queue: closed") }

// batch is what the changes of one commit make of the queue. Memory follows only when the file has it.
type batch struct {
	q        *Queue
	drafts   map[Key]*draft
	receipts map[Key]Receipt
	also     []func(*bolt.Tx) error // what has no part in memory
}

// draft is an entry as the batch leaves it.
type draft struct {
	job    Job
	exists bool
	leased bool
	again  bool // put by this batch, or before, while leased
	put    bool // put by this batch
	ended  bool // its lease ended in this batch
}

// at returns the draft of k for editing.
func (b *batch) at(k Key) *draft {
	d := b.drafts[k]
	if d == nil {
		d = new(draft)
		b.q.mu.Lock()
		if e := b.q.entries[k]; e != nil {
			*d = draft{job: e.job, exists: true, leased: e.leased, again: e.again}
		}
		b.q.mu.Unlock()
		b.drafts[k] = d
	}
	return d
}

func (q *Queue) write(all []*change) error {
	b := &batch{q: q, drafts: make(map[Key]*draft), receipts: make(map[Key]Receipt)}
	for _, c := range all {
		c.edit(b)
	}
	if err := b.update(); err != nil {
		return registry.Errorf(registry.Internal, "queue: write %s: %w", q.db.Path(), err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, d := range b.drafts {
		q.see(k, d)
	}
	close(q.wake)
	q.wake = make(chan struct{})
	return nil
}

// update writes the file, unless there is nothing to write.
func (b *batch) update() error {
	write := len(b.receipts) > 0 || len(b.also) > 0
	for _, d := range b.drafts {
		write = write || !(d.exists && d.job.Lent)
	}
	if !write {
		return nil
	}
	return b.q.db.Update(b.store)
}

func (b *batch) store(tx *bolt.Tx) error {
	jobs, receipts, bringing := tx.Bucket([]byte(jobsBucket)), tx.Bucket([]byte(receiptsBucket)), tx.Bucket([]byte(bringingBucket))
	for k, d := range b.drafts {
		if d.exists && d.job.Lent {
			continue
		}
		if !d.exists {
			if err := jobs.Delete(k.encode()); err != nil {
				return fmt.Errorf("%v: %w", k, err)
			}
			continue
		}
		v, err := encodeJob(d.job)
		if err == nil {
			err = jobs.Put(k.encode(), v)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", k, err)
		}
	}
	for k, r := range b.receipts {
		key := k.encode()
		if bringing.Get(key) != nil {
			r.Found = false
			if err := bringing.Delete(key); err != nil {
				return fmt.Errorf("receipt %v: %w", k, err)
			}
		}
		old := receipts.Get(key)
		if r.Found && sameReceipt(old, r) { // the first receipt knows better how it came to be there
			continue
		}
		v, err := encodeReceipt(r)
		if old == nil {
			b.q.receipts.Add(1)
		}
		if err == nil {
			err = receipts.Put(key, v)
		}
		if err != nil {
			return fmt.Errorf("receipt %v: %w", k, err)
		}
	}
	for _, f := range b.also {
		if err := f(tx); err != nil {
			return err
		}
	}
	return nil
}

// sameReceipt reports whether stored, if there is one, is about the same content as r.
func sameReceipt(stored []byte, r Receipt) bool {
	if stored == nil {
		return false
	}
	old, err := decodeReceipt(r.Key.encode(), stored)
	return err == nil && old.Digest == r.Digest && old.Partial == r.Partial
}

// see brings memory up to the file. A lease may have begun while the file was written. The caller holds mu.
func (q *Queue) see(k Key, d *draft) {
	e := q.entries[k]
	if !d.exists {
		if e != nil {
			q.order.remove(e)
			delete(q.entries, k)
			delete(q.lent, k)
		}
		return
	}
	if e == nil {
		e = &entry{at: -1}
		q.entries[k] = e
	}
	if e.job = d.job; d.job.Lent {
		q.lent[k] = struct{}{}
	} else {
		delete(q.lent, k)
	}
	e.unwritten = 0
	if d.ended {
		e.leased, e.again = false, false
	}
	if e.leased && d.put {
		e.again = true
	}
	q.order.place(e)
}
