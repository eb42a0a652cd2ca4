package replicate

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Names of the states of what is not, or no more, a job.
const (
	StatusDone  = "done"  // this queue brought it
	StatusFound = "found" // somebody else did, or it was there before
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxScan     = 100_000 // keys that one page looks at
)

// Status is what the queue knows of one tag, or of one image by digest, at one destination.
type Status struct {
	Key
	State      string        // a State's name, StatusDone or StatusFound
	Content    digest.Digest // what the tag names, or is to name; Key.Digest for content
	SeenAt     time.Time     // when it was pushed at the source; zero when unknown
	PullableAt time.Time     // zero: not yet
	Bytes      int64         // sent for it
	Attempts   int
	NextAt     time.Time // of a job that waits
	Err        string    // the last failure
}

// StatusQuery picks; the zero value of a field picks everything.
type StatusQuery struct {
	Repo, Tag, State string
	After            string // the cursor that the page before returned
	Limit            int    // entries of a page: 100 if 0, at most 1000
}

// ID is k as one word that names it in URLs and on command lines.
func (k Key) ID() string { return base64.RawURLEncoding.EncodeToString(k.encode()) }

// ParseID reads what ID returned; anything else is Invalid.
func ParseID(id string) (Key, error) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil {
		return Key{}, registry.Errorf(registry.Invalid, "key %.64q: %w", id, err)
	}
	k, err := decodeKey(b)
	if err != nil {
		return Key{}, registry.Errorf(registry.Invalid, "key %.64q: %w", id, err)
	}
	return k, nil
}

// Status returns a page of jobs and receipts in the order of their stored keys, and the cursor of the next page, "" after
// the last. A page may hold fewer than Limit, even none, and not be the last. A cursor that is none is Invalid.
func (q *Queue) Status(ctx context.Context, o StatusQuery) (page []Status, next string, err error) {
	var after []byte
	if o.After != "" {
		k, err := ParseID(o.After)
		if err != nil {
			return nil, "", err
		}
		after = k.encode()
	}
	if o.Limit <= 0 {
		o.Limit = defaultPage
	}
	o.Limit = min(o.Limit, maxPage)
	jobs := q.jobsAfter(after, o)
	err = q.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(receiptsBucket)).Cursor()
		rk, rv := c.Seek(after)
		if rk != nil && bytes.Equal(rk, after) {
			rk, rv = c.Next()
		}
		for scanned := 0; rk != nil || len(jobs) > 0; scanned++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			if len(page) == o.Limit || scanned == maxScan {
				next = base64.RawURLEncoding.EncodeToString(after)
				return nil
			}
			var s Status
			order := -1 // of the next receipt to the next job: which comes first
			if rk == nil {
				order = 1
			} else if len(jobs) > 0 {
				order = bytes.Compare(rk, jobs[0].key)
			}
			if order <= 0 {
				if after = slices.Clone(rk); order == 0 || o.wants(after) {
					r, err := decodeReceipt(rk, rv)
					if err != nil {
						return err
					}
					s = fromReceipt(r)
				}
				rk, rv = c.Next()
			}
			if order >= 0 {
				after = jobs[0].key
				s.fill(jobs[0].Job)
				jobs = jobs[1:]
			}
			if s.State != "" && (o.State == "" || o.State == s.State) {
				page = append(page, s)
			}
		}
		return nil
	})
	return page, next, internal(err)
}

type keyed struct {
	Job
	key []byte
}

// jobsAfter returns the jobs that o picks by name, in the order of their stored keys.
func (q *Queue) jobsAfter(after []byte, o StatusQuery) []keyed {
	var jobs []keyed
	q.mu.Lock()
	for k, e := range q.entries {
		if o.Repo != "" && k.Repo != o.Repo || o.Tag != "" && k.Tag != o.Tag {
			continue
		}
		j := keyed{e.job, k.encode()}
		if e.leased {
			j.State = Leased
		}
		if bytes.Compare(j.key, after) > 0 {
			jobs = append(jobs, j)
		}
	}
	q.mu.Unlock()
	slices.SortFunc(jobs, func(a, b keyed) int { return bytes.Compare(a.key, b.key) })
	return jobs
}

// wants looks at the names in a stored key alone.
func (o StatusQuery) wants(key []byte) bool {
	if o.Repo == "" && o.Tag == "" {
		return true
	}
	k, err := decodeKey(key)
	return err != nil || (o.Repo == "" || k.Repo == o.Repo) && (o.Tag == "" || k.Tag == o.Tag) // the error is reported later
}

func fromReceipt(r Receipt) Status {
	s := Status{Key: r.Key, State: StatusDone, Content: r.Digest, SeenAt: r.SeenAt, PullableAt: r.PullableAt, Bytes: r.Bytes}
	if r.Key.Tag == "" {
		s.Content = r.Key.Digest
	}
	if r.Found {
		s.State = StatusFound
	}
	return s
}

// fill makes s what the job says. What an earlier receipt said of another digest is left out.
func (s *Status) fill(j Job) {
	want := j.Hint
	if j.Tag == "" {
		want = j.Digest
	}
	if s.Content == "" || want != "" && want != s.Content {
		*s = Status{Content: want}
	}
	s.Key, s.State, s.SeenAt, s.Attempts, s.NextAt, s.Err = j.Key, j.State.String(), j.SeenAt, j.Attempts, j.NextAt, j.Err
}
