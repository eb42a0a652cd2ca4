package replicate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Queue holds jobs in a bbolt file. What Put, Done, Fail, Retry and Forget returned nil for survives a power cut; leases
// live in memory, so after a restart every unfinished job is pending again. Methods are safe for concurrent use.
type Queue struct {
	// The policy of Fail. Set it before use; zero values take the default.
	MaxAttempts int           // failures after which a job is dead: 10
	MinDelay    time.Duration // before the second attempt; doubles with each failure: 1s
	MaxDelay    time.Duration // at most: 10m
	Patience    time.Duration // how long throttling and outages alone do not make a job dead: 24h

	// What the file keeps. Set it before use, too.
	MaxReceipts int // about how many, the latest: 500,000; and as many notes of what images brought along
	MaxTrails   int // as well, of tags and manifests that a Trail noted: 1,000,000
	// MaxLetterBytes is how many bytes of the file dead letters take, their bodies being a third larger there: 128 MiB.
	MaxLetterBytes int

	db      *bolt.DB
	commits sync.Mutex // held while a batch is written; taken before mu

	receipts, notes, trails kept

	mu       sync.Mutex
	closed   bool
	gathered []*change // for the next write
	entries  map[Key]*entry
	order    order
	lent     map[Key]struct{}
	wake     chan struct{} // closed and replaced when order changes
}

// OpenQueue opens the file at path, creating it (mode 0600) if it is absent. It fails with ErrLocked when another process has
// it open, and when it holds a job that this program does not understand. The caller closes the queue.
func OpenQueue(path string) (*Queue, error) {
	_, statErr := os.Stat(path)
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, notOpen(path, err)
	}
	q := &Queue{db: db, entries: make(map[Key]*entry), lent: make(map[Key]struct{}), wake: make(chan struct{})}
	err = db.Update(q.load)
	if err == nil && errors.Is(statErr, os.ErrNotExist) {
		err = syncDir(filepath.Dir(path)) // bbolt syncs the file; its name is the directory's
	}
	if err != nil {
		db.Close()
		return nil, registry.Errorf(registry.Internal, "queue: open %s: %w", path, err)
	}
	return q, nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (q *Queue) load(tx *bolt.Tx) error {
	jobs, err := tx.CreateBucketIfNotExists([]byte(jobsBucket))
	if err != nil {
		return err
	}
	for _, name := range []string{receiptsBucket, lettersBucket, letterIDsBucket, deletionsBucket, trailsBucket, budgetsBucket, bringingBucket} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	q.receipts.count(tx, receiptsBucket)
	q.notes.count(tx, bringingBucket)
	q.trails.count(tx, trailsBucket)
	now := time.Now()
	return jobs.ForEach(func(k, v []byte) error {
		j, err := decodeJob(k, v)
		if err != nil {
			return err
		}
		if j.NextAt.After(now.Add(2 * maxRetryAfter)) { // the clock was wrong when it was written: not to wait for that
			j.NextAt = now
		}
		e := &entry{job: j, at: -1}
		q.entries[j.Key] = e
		q.order.place(e)
		return nil
	})
}

// Close waits for the write under way and closes the file. Blocked calls of Lease return. Jobs that are leased are pending
// when the file is opened again.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	close(q.wake)
	q.wake = make(chan struct{})
	q.mu.Unlock()
	for { // writes that gathered before closed was set
		q.commits.Lock()
		q.mu.Lock()
		left := len(q.gathered)
		q.mu.Unlock()
		if left == 0 {
			defer q.commits.Unlock()
			return q.db.Close()
		}
		q.commits.Unlock()
	}
}

// Put writes jobs down, all or none, and returns when they are durable. Of a job only Key, Lane, Hint, Follow, Bytes, SeenAt, Lent and
// NextAt (zero: now) are looked at. A key that is already there is refreshed; if it is being worked on, it is run again
// afterwards. A key that is not valid is Invalid. ctx does not interrupt a write that has begun.
func (q *Queue) Put(ctx context.Context, jobs ...Job) error {
	for _, j := range jobs {
		if err := j.Validate(); err != nil {
			return err
		}
		if j.Hint != "" && j.Hint.Validate() != nil {
			return registry.Errorf(registry.Invalid, "job %v: hint %q: invalid", j.Key, j.Hint)
		}
		if j.Lane >= lanes {
			return registry.Errorf(registry.Invalid, "job %v: lane %d: unknown", j.Key, uint8(j.Lane))
		}
	}
	if err := ctx.Err(); err != nil || len(jobs) == 0 {
		return err
	}
	return q.commit(func(b *batch) {
		now := time.Now()
		for _, j := range jobs {
			d := b.at(j.Key)
			if d.exists {
				d.job = d.job.refreshed(j, now, q.maxAttempts())
			} else {
				n := Job{Key: j.Key, Lane: j.Lane, Hint: j.Hint, SeenAt: j.SeenAt, Created: now, NextAt: j.NextAt, Lent: j.Lent, Follow: j.Follow, Bytes: j.Bytes}
				if n.NextAt.IsZero() {
					n.NextAt = now
				}
				d.job, d.exists = n, true
			}
			d.put, d.again = true, d.leased && !d.ended
		}
	})
}

// Retry has the job of key k tried now, with its attempts counted from zero. An unknown key is NotFound.
func (q *Queue) Retry(ctx context.Context, k Key) error {
	return q.edit(ctx, k, func(d *draft) {
		now := time.Now()
		d.job.State, d.job.Attempts, d.job.Failing, d.job.Created, d.job.NextAt = Pending, 0, time.Time{}, now, now
		d.put, d.again = true, d.leased && !d.ended
	})
}

// Forget drops the dead or conflicting job of key k. One that is pending is Conflict, an unknown key NotFound.
func (q *Queue) Forget(ctx context.Context, k Key) error {
	var refused error
	err := q.edit(ctx, k, func(d *draft) {
		if d.job.State != Dead && d.job.State != Conflict {
			refused = registry.Errorf(registry.Conflict, "job %v: is %v", k, d.job.State)
			return
		}
		d.exists = false
	})
	return errors.Join(err, refused)
}

func (q *Queue) edit(ctx context.Context, k Key, f func(*draft)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var missing error
	err := q.commit(func(b *batch) {
		if d := b.at(k); d.exists {
			f(d)
		} else {
			missing = registry.Errorf(registry.NotFound, "job %v: not found", k)
		}
	})
	return errors.Join(err, missing)
}
