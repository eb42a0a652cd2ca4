package storage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// recentLinks is how many objects have their links in memory, at some 400 bytes: an image pulled by many nodes is a few.
const recentLinks = 4096

// meta is meta.db behind a write-behind cache: a put is seen at once and is durable after the next flush. Flushes that
// wait for one another become one transaction, so many small writes cost one fsync.
type meta struct {
	db      *bbolt.DB
	update  func(func(*bbolt.Tx) error) error // db.Update; tests make it fail
	flushMu sync.Mutex                        // held by the one flush that runs

	mu       sync.RWMutex
	pending  batch // not yet given to a transaction
	flushing batch // in the transaction that runs

	recent *lru.Cache[digest.Digest, map[place]linkRow] // links last asked for; a map is never changed, and goes with any change
}

// openMeta opens or creates the file and takes its lock, waiting at most wait for another process to release it.
func openMeta(path string, wait time.Duration) (*meta, error) {
	db, err := openDB(path, wait, false)
	if err != nil {
		return nil, err
	}
	if err := prepareDB(db); err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	m := &meta{db: db, update: db.Update, pending: newBatch(), flushing: newBatch()}
	m.recent, _ = lru.New[digest.Digest, map[place]linkRow](recentLinks) // fails only for a size below 1
	return m, nil
}

func (m *meta) close() error { return errors.Join(m.flush(), m.db.Close()) }

// get looks a row up in what is not yet written, and else in the file. It returns nil for none.
// The caller holds mu, so that a flush does not end between the look at its batch and at the file.
func (m *meta) get(bucket, key string, unwritten func(batch) (v []byte, known bool)) []byte {
	for _, b := range []batch{m.pending, m.flushing} {
		if v, known := unwritten(b); known {
			return v
		}
	}
	var v []byte
	_ = guarded(m.db.View, func(tx *bbolt.Tx) error { // fails once the store is closed, or is damaged: then nothing is there
		v = bytes.Clone(tx.Bucket([]byte(bucket)).Get([]byte(key)))
		return nil
	})
	return v
}

func (m *meta) link(p place, d digest.Digest) (l linkRow, ok bool) {
	m.mu.RLock()
	defer m.mu.RUnlock() // until the answer is remembered: no change comes between
	known, _ := m.recent.Get(d)
	if l, ok = known[p]; ok {
		return l, true
	}
	key := p.link(d)
	v := m.get(bucketLinks, key, func(b batch) ([]byte, bool) {
		c := b.objects[d]
		v, known := c.links[key]
		return v, known || c.dropped
	})
	if v == nil || json.Unmarshal(v, &l) != nil {
		return linkRow{}, false
	}
	next := map[place]linkRow{p: l}
	maps.Copy(next, known)
	m.recent.Add(d, next)
	return l, true
}

// putLink gives p the right to read an object that is on the disk, and counts as a use of it.
func (m *meta) putLink(p place, desc registry.Descriptor) {
	v, err := json.Marshal(linkRow{desc.MediaType, desc.Size})
	if err != nil {
		return // never: the type can be encoded
	}
	m.change(desc.Digest, func(c *change) {
		c.row = objectRow{time.Now().UnixNano(), desc.Size}.encode()
		c.link(p.link(desc.Digest), v)
	})
}

// putAccess saves when an object was used last.
func (m *meta) putAccess(d digest.Digest, r objectRow) {
	m.change(d, func(c *change) { c.row = r.encode() })
}

// objects returns the objects whose digests begin with prefix, in order, about n of them; the size of one whose row makes
// no sense is -1. They share two pieces of memory, which go with the last of them: there may be millions.
func (m *meta) objects(prefix string, n int) ([]item, error) {
	items, digests := make([]item, 0, n), make([]byte, 0, n*(len(prefix)+62))
	err := guarded(m.db.View, func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucketObjects)).Cursor()
		for k, v := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			r, ok := decodeObject(v)
			if !ok {
				r.size = -1
			}
			digests = append(digests, k...)
			items = append(items, item{size: r.size, access: r.access, pins: int32(len(k))})
		}
		return nil
	})
	all := digest.Digest(digests)
	for i := range items {
		items[i].key.digest, all = all[:items[i].pins], all[items[i].pins:]
		items[i].pins = 0
	}
	return items, err
}

// drop forgets an object and every link to it: content that comes back later is nobody's until asked for again.
func (m *meta) drop(d digest.Digest) {
	m.change(d, func(c *change) { *c = change{dropped: true} })
}

func (m *meta) change(d digest.Digest, f func(*change)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changeLocked(d, f)
}

func (m *meta) changeLocked(d digest.Digest, f func(*change)) {
	m.recent.Remove(d)
	m.pending.change(d, f)
}

func (m *meta) tag(key string) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.get(bucketTags, key, func(b batch) ([]byte, bool) {
		v, known := b.tags[key]
		return v, known
	})
}

// putTag stores a tag; a nil value deletes it.
func (m *meta) putTag(key string, value []byte) {
	m.mu.Lock()
	m.pending.tags[key] = value
	m.mu.Unlock()
}

// flush makes durable all that was put before it was called.
func (m *meta) flush() error {
	m.flushMu.Lock()
	defer m.flushMu.Unlock()
	m.mu.Lock()
	m.flushing, m.pending = m.pending, newBatch()
	b := m.flushing
	m.mu.Unlock()
	if len(b.objects)+len(b.tags) == 0 {
		return nil
	}
	err := guarded(m.update, b.apply)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil { // try again with the next flush; what was written since is newer
		b.add(m.pending)
		m.pending = b
		err = fmt.Errorf("write metadata: %w", err)
	}
	m.flushing = newBatch()
	return err
}

// batch is a set of writes.
type batch struct {
	objects map[digest.Digest]change
	tags    map[string][]byte // nil: delete
}

// change is what happens to an object's rows, in this order.
type change struct {
	dropped bool              // its row and its links go
	row     []byte            // nil: no new one
	links   map[string][]byte // by key; nil: delete
}

func (c *change) link(key string, v []byte) {
	if c.links == nil {
		c.links = make(map[string][]byte)
	}
	c.links[key] = v
}

func newBatch() batch { return batch{make(map[digest.Digest]change), make(map[string][]byte)} }

func (b batch) change(d digest.Digest, f func(*change)) {
	c := b.objects[d]
	f(&c)
	b.objects[d] = c
}

// add adds what happened later.
func (b batch) add(later batch) {
	maps.Copy(b.tags, later.tags)
	for d, l := range later.objects {
		c := b.objects[d]
		if l.dropped {
			c = change{dropped: true}
		}
		if l.row != nil {
			c.row = l.row
		}
		if c.links == nil {
			c.links = l.links
		} else {
			maps.Copy(c.links, l.links)
		}
		b.objects[d] = c
	}
}

func (b batch) apply(tx *bbolt.Tx) error {
	objects, links, tags := tx.Bucket([]byte(bucketObjects)), tx.Bucket([]byte(bucketLinks)), tx.Bucket([]byte(bucketTags))
	for d, c := range b.objects {
		if c.dropped {
			if err := errors.Join(objects.Delete([]byte(d)), dropLinks(links, d)); err != nil {
				return err
			}
		}
		if c.row != nil {
			if err := objects.Put([]byte(d), c.row); err != nil {
				return err
			}
		}
		if err := putAll(links, c.links); err != nil {
			return err
		}
	}
	return putAll(tags, b.tags)
}

// putAll stores rows; a nil value deletes one.
func putAll(bucket *bbolt.Bucket, rows map[string][]byte) error {
	for key, v := range rows {
		var err error
		if v == nil {
			err = bucket.Delete([]byte(key))
		} else {
			err = bucket.Put([]byte(key), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func dropLinks(links *bbolt.Bucket, d digest.Digest) error {
	prefix := []byte(d.String() + "\x00")
	c := links.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
		if err := links.Delete(bytes.Clone(k)); err != nil {
			return err
		}
	}
	return nil
}
