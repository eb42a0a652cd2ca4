package storage

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
)

// Purge takes repo of a namespace out of reach: its content is nobody's there until an upstream has been asked for it again,
// and what its tags named is forgotten. Bytes stay for the other places that have them, and else until they are evicted. A
// download that is under way may link its object again. It is seen at once and durable within a second or at Close. It reads
// all links, which takes about a second for a million.
func (s *Store) Purge(namespace, repo string) error {
	err := s.meta.dropLinksOf("\x00" + namespace + "\x00" + repo)
	if err == nil {
		err = s.Tags(namespace).Delete(repo, "")
	}
	if err != nil {
		return fmt.Errorf("purge %s: %w", repo, err)
	}
	s.flushSoon()
	return nil
}

// dropLinksOf deletes the links whose key ends with suffix.
func (m *meta) dropLinksOf(suffix string) error {
	keys, err := m.keys(bucketLinks, "", suffix)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range []batch{m.pending, m.flushing} {
		for _, c := range b.objects {
			for key := range c.links {
				if strings.HasSuffix(key, suffix) {
					keys = append(keys, key)
				}
			}
		}
	}
	for _, key := range keys {
		d, _, _ := strings.Cut(key, "\x00")
		m.changeLocked(digest.Digest(d), func(c *change) { c.link(key, nil) })
	}
	return err
}

// dropTagsOf deletes the tags whose key begins with prefix.
func (m *meta) dropTagsOf(prefix string) error {
	keys, err := m.keys(bucketTags, prefix, "")
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range []batch{m.pending, m.flushing} {
		for key := range b.tags {
			if strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range keys {
		m.pending.tags[key] = nil
	}
	return err
}

// keys returns the keys in the file that begin with prefix and end with suffix. What was put before the call is there, or
// not yet written: it does not get past both this look and a later one at the batches.
func (m *meta) keys(bucket, prefix, suffix string) (keys []string, err error) {
	if err := m.flush(); err != nil {
		return nil, err
	}
	err = guarded(m.db.View, func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucket)).Cursor()
		for k, _ := c.Seek([]byte(prefix)); bytes.HasPrefix(k, []byte(prefix)) && k != nil; k, _ = c.Next() {
			if bytes.HasSuffix(k, []byte(suffix)) {
				keys = append(keys, string(k))
			}
		}
		return nil
	})
	return keys, err
}
