package replicate

import (
	"bytes"
	"context"
	"encoding/base64"
	"slices"
	"strings"

	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// ImageQuery picks images of one mirror, in the order of their names.
type ImageQuery struct {
	Mirror       string
	Destinations []string // whose statuses are wanted
	Digests      bool     // images by digest; else by tag
	Repo, Name   string   // what repository, and tag or digest, begin with
	State        string   // that it has at any of the destinations; "": any
	After        string   // the cursor that the page before returned
	Limit        int      // images of a page: 100 if 0, at most 1000
}

// ImageRow is one image at several destinations.
type ImageRow struct {
	Repo, Name string   // Name is a tag, or a digest with ImageQuery.Digests
	At         []Status // by ImageQuery.Destinations; State is "" where nothing is known of it
}

// Bounds on what one page looks at, however much there is.
const (
	maxImageKeys = 10_000
	maxImageRows = 2_000 // that were read to be compared with a state
)

// Images returns a page of what the queue knows of images at destinations, and the cursor of the next page, "" after the last.
// What one call reads is bounded, whatever the queue holds: so a page may hold fewer images than Limit, even none, and not be
// the last. A cursor that is none is Invalid.
func (q *Queue) Images(ctx context.Context, o ImageQuery) (rows []ImageRow, next string, err error) {
	rows, next, _, err = q.images(ctx, o)
	return rows, next, err
}

// images also returns how many keys it looked at.
func (q *Queue) images(ctx context.Context, o ImageQuery) (rows []ImageRow, next string, looked int, err error) {
	after, err := base64.RawURLEncoding.DecodeString(o.After)
	if err != nil {
		return nil, "", 0, registry.Errorf(registry.Invalid, "cursor %.64q: %w", o.After, err)
	}
	if o.Limit <= 0 {
		o.Limit = defaultPage
	}
	o.Limit = min(o.Limit, maxPage)
	err = q.db.View(func(tx *bolt.Tx) error {
		all := q.streams(tx, o, after)
		for read := 0; ; {
			if err := ctx.Err(); err != nil {
				return err
			}
			name := earliest(all)
			if name == nil {
				return nil
			}
			if len(rows) == o.Limit || looked >= maxImageKeys || read >= maxImageRows {
				next = base64.RawURLEncoding.EncodeToString(after)
				return nil
			}
			after = slices.Clone(name)
			for _, s := range all {
				if bytes.Equal(s.name, after) {
					s.step()
					looked++
				}
			}
			repo, last, ok := strings.Cut(string(after), "\x00")
			if !ok || !strings.HasPrefix(last, o.Name) {
				continue
			}
			read++
			row := ImageRow{Repo: repo, Name: last}
			if row.At, err = q.statuses(tx, o, after); err != nil {
				return err
			}
			if o.State == "" || slices.ContainsFunc(row.At, func(s Status) bool { return s.State == o.State }) {
				rows = append(rows, row)
			}
		}
	})
	return rows, next, looked, internal(err)
}

// statuses returns what is known at each destination of the image whose keys end in name.
func (q *Queue) statuses(tx *bolt.Tx, o ImageQuery, name []byte) ([]Status, error) {
	at := make([]Status, len(o.Destinations))
	for i, d := range o.Destinations {
		key := append(o.prefix(d), name...)
		k, err := decodeKey(key)
		if err != nil {
			return nil, err
		}
		if v := tx.Bucket([]byte(receiptsBucket)).Get(key); v != nil {
			r, err := decodeReceipt(key, v)
			if err != nil {
				return nil, err
			}
			at[i] = fromReceipt(r)
		}
		if j, ok := q.Job(k); ok {
			at[i].fill(j)
		}
	}
	return at, nil
}

// prefix is what the stored keys at a destination begin with, up to the repository.
func (o ImageQuery) prefix(destination string) []byte {
	kind := "t"
	if o.Digests {
		kind = "c"
	}
	return []byte(strings.Join([]string{kind, o.Mirror, destination, ""}, "\x00"))
}

// jobsAlone reports whether only what has a job can be in the state that is asked for.
func (o ImageQuery) jobsAlone() bool {
	return slices.Contains([]string{Pending.String(), Leased.String(), Dead.String(), Conflict.String()}, o.State)
}

// stream yields the names, that is the ends of the keys after their prefix, of what one bucket holds of a destination. The jobs
// that are lent are in no bucket: lent are theirs.
type stream struct {
	name   []byte // nil at the end
	cursor *bolt.Cursor
	prefix []byte
	repo   []byte // what names begin with
	lent   [][]byte
}

// streams are all that o asks for, each at its first name after the cursor.
func (q *Queue) streams(tx *bolt.Tx, o ImageQuery, after []byte) (all []*stream) {
	buckets := []string{jobsBucket, receiptsBucket}
	if o.jobsAlone() {
		buckets = buckets[:1]
	}
	from := after
	if bytes.Compare(from, []byte(o.Repo)) < 0 {
		from = []byte(o.Repo)
	}
	for _, d := range o.Destinations {
		prefix := o.prefix(d)
		for _, b := range buckets {
			s := &stream{cursor: tx.Bucket([]byte(b)).Cursor(), prefix: prefix, repo: []byte(o.Repo)}
			k, _ := s.cursor.Seek(append(slices.Clone(prefix), from...))
			if s.see(k); s.name != nil && bytes.Equal(s.name, after) {
				s.step()
			}
			all = append(all, s)
		}
		if lent := q.lentNames(prefix, []byte(o.Repo), after); len(lent) > 0 {
			all = append(all, &stream{name: lent[0], lent: lent[1:]})
		}
	}
	return all
}

// lentNames returns the names of lent jobs, of which there are as many as the shared queue of events has messages in flight here.
func (q *Queue) lentNames(prefix, repo, after []byte) (names [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for k := range q.lent {
		if name, ok := bytes.CutPrefix(k.encode(), prefix); ok && bytes.HasPrefix(name, repo) && bytes.Compare(name, after) > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, bytes.Compare)
	return names
}

// see takes the name of a stored key, if it is one of the stream's.
func (s *stream) see(key []byte) {
	name, ok := bytes.CutPrefix(key, s.prefix)
	if s.name = name; key == nil || !ok || !bytes.HasPrefix(name, s.repo) {
		s.name = nil
	}
}

func (s *stream) step() {
	switch {
	case s.cursor != nil:
		k, _ := s.cursor.Next()
		s.see(k)
	case len(s.lent) > 0:
		s.name, s.lent = s.lent[0], s.lent[1:]
	default:
		s.name = nil
	}
}

// earliest returns the first of the streams' names; nil when all have ended.
func earliest(all []*stream) (first []byte) {
	for _, s := range all {
		if s.name != nil && (first == nil || bytes.Compare(s.name, first) < 0) {
			first = s.name
		}
	}
	return first
}
