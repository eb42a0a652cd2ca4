package storage

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// The buckets of meta.db. Content is not in it: losing the file costs access times, tags and links, and a link is made
// again by one upstream Stat.
const (
	bucketLinks   = "links"   // digest \0 kind \0 namespace \0 repo -> linkRow
	bucketObjects = "objects" // digest -> last access, 8 bytes, big-endian Unix nanoseconds
	bucketTags    = "tags"    // namespace \0 repo \0 tag -> tagRow
	bucketFormat  = "format"  // "version" -> formatVersion
	formatVersion = "1"
)

// place is where an object is asked for: bytes are shared between places, the right to read them is not.
type place struct {
	namespace, repo string
	kind            registry.Kind
}

func (p place) link(d digest.Digest) string {
	return d.String() + "\x00" + p.kind.String() + "\x00" + p.namespace + "\x00" + p.repo
}

// linkRow is the stored form of a link. Fields may be added; these keep their names and meaning.
type linkRow struct {
	MediaType string `json:"mediaType,omitempty"`
	Size      int64  `json:"size"`
}

// meta is meta.db behind a write-behind cache: a put is seen at once and is durable after the next flush. Flushes that
// wait for one another become one transaction, so many small writes cost one fsync.
type meta struct {
	db      *bbolt.DB
	flushMu sync.Mutex // held by the one flush that runs

	mu       sync.RWMutex
	pending  batch // not yet given to a transaction
	flushing batch // in the transaction that runs
}

type row struct{ bucket, key string }

// batch is a set of writes. Drops come before puts.
type batch struct {
	puts  map[row][]byte // nil: delete
	drops map[digest.Digest]bool
}

func newBatch() batch { return batch{make(map[row][]byte), make(map[digest.Digest]bool)} }

// openMeta opens or creates the file and takes its lock, waiting at most wait for another process to release it.
func openMeta(path string, wait time.Duration) (*meta, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: wait, FreelistType: bbolt.FreelistMapType})
	if errors.Is(err, berrors.ErrTimeout) {
		return nil, fmt.Errorf("%s is locked: another process uses this directory", path)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range []string{bucketLinks, bucketObjects, bucketTags, bucketFormat} {
			if _, err := tx.CreateBucketIfNotExists([]byte(b)); err != nil {
				return err
			}
		}
		f := tx.Bucket([]byte(bucketFormat))
		if v := f.Get([]byte("version")); v != nil && string(v) != formatVersion {
			return fmt.Errorf("format version %s, this program knows %s", v, formatVersion)
		}
		return f.Put([]byte("version"), []byte(formatVersion))
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &meta{db: db, pending: newBatch(), flushing: newBatch()}, nil
}

func (m *meta) close() error { return errors.Join(m.flush(), m.db.Close()) }

// get returns a row that is not of a dropped object, or nil.
func (m *meta) get(bucket, key string, d digest.Digest) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock() // held over the read of db, so that a flush does not end between the look at its batch and at db
	for _, b := range []batch{m.pending, m.flushing} {
		if v, ok := b.puts[row{bucket, key}]; ok {
			return v
		}
		if b.drops[d] {
			return nil
		}
	}
	var v []byte
	_ = m.db.View(func(tx *bbolt.Tx) error { // fails only once the store is closed: then nothing is there
		v = bytes.Clone(tx.Bucket([]byte(bucket)).Get([]byte(key)))
		return nil
	})
	return v
}

// put stores a row; a nil value deletes it.
func (m *meta) put(bucket, key string, value []byte) {
	m.mu.Lock()
	m.pending.puts[row{bucket, key}] = value
	m.mu.Unlock()
}

// drop forgets an object and every link to it: content that comes back later is nobody's until asked for again.
func (m *meta) drop(d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending.forget(d)
	m.pending.drops[d] = true
}

func (m *meta) link(p place, d digest.Digest) (l linkRow, ok bool) {
	v := m.get(bucketLinks, p.link(d), d)
	return l, v != nil && json.Unmarshal(v, &l) == nil
}

func (m *meta) putLink(p place, desc registry.Descriptor) {
	v, err := json.Marshal(linkRow{desc.MediaType, desc.Size})
	if err == nil { // always: the type can be encoded
		m.put(bucketLinks, p.link(desc.Digest), v)
	}
}

func (m *meta) putAccess(d digest.Digest, at time.Time) {
	m.put(bucketObjects, d.String(), binary.BigEndian.AppendUint64(nil, uint64(at.UnixNano())))
}

// accessTimes returns the saved last access of every object.
func (m *meta) accessTimes() (map[digest.Digest]time.Time, error) {
	times := make(map[digest.Digest]time.Time)
	err := m.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte(bucketObjects)).ForEach(func(k, v []byte) error {
			if len(v) == 8 {
				times[digest.Digest(k)] = time.Unix(0, int64(binary.BigEndian.Uint64(v)))
			}
			return nil
		})
	})
	return times, err
}

// prune drops the rows of objects that are not known: those whose eviction a crash kept from the file. Their links must not
// come back to life with the content.
func (m *meta) prune(known func(digest.Digest) bool) error {
	return m.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range []string{bucketLinks, bucketObjects} {
			err := tx.Bucket([]byte(bucket)).ForEach(func(k, _ []byte) error {
				d, _, _ := strings.Cut(string(k), "\x00")
				if !known(digest.Digest(d)) {
					m.drop(digest.Digest(d))
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// flush makes durable all that was put before it was called.
func (m *meta) flush() error {
	m.flushMu.Lock()
	defer m.flushMu.Unlock()
	m.mu.Lock()
	m.flushing, m.pending = m.pending, newBatch()
	b := m.flushing
	m.mu.Unlock()
	if len(b.puts)+len(b.drops) == 0 {
		return nil
	}
	err := m.db.Update(b.apply)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil { // try again with the next flush; what was written since is newer
		for d := range m.pending.drops {
			b.forget(d)
			b.drops[d] = true
		}
		for r, v := range m.pending.puts {
			b.puts[r] = v
		}
		m.pending = b
		err = fmt.Errorf("write metadata: %w", err)
	}
	m.flushing = newBatch()
	return err
}

// forget takes the puts of an object out of the batch.
func (b batch) forget(d digest.Digest) {
	for r := range b.puts {
		if r.bucket != bucketTags && (r.key == d.String() || strings.HasPrefix(r.key, d.String()+"\x00")) {
			delete(b.puts, r)
		}
	}
}

func (b batch) apply(tx *bbolt.Tx) error {
	links := tx.Bucket([]byte(bucketLinks))
	for d := range b.drops {
		prefix := []byte(d.String() + "\x00")
		c := links.Cursor()
		for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Seek(prefix) {
			if err := links.Delete(bytes.Clone(k)); err != nil {
				return err
			}
		}
		if err := tx.Bucket([]byte(bucketObjects)).Delete([]byte(d)); err != nil {
			return err
		}
	}
	for r, v := range b.puts {
		bucket := tx.Bucket([]byte(r.bucket))
		var err error
		if v == nil {
			err = bucket.Delete([]byte(r.key))
		} else {
			err = bucket.Put([]byte(r.key), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
