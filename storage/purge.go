package storage

import (
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
)

// Purge takes repo of a namespace out of reach: its content is nobody's there until an upstream has been asked for it again,
// and what its tags named is forgotten. Bytes stay for the other places that have them, and else until they are evicted. A
// download that is under way may link its object again. It is seen at once and durable within a second or at Close. It reads
// all links, which takes about a second for a million.
func (s *Store) Purge(namespace, repo string) error {
	place := "\x00" + namespace + "\x00" + repo
	err := s.meta.remove(bucketLinks, "", func(key string) bool { return strings.HasSuffix(key, place) })
	if err == nil {
		err = s.Tags(namespace).Delete(repo, "")
	}
	if err != nil {
		return fmt.Errorf("purge %s: %w", repo, err)
	}
	s.flushSoon()
	return nil
}

// remove deletes the rows whose key begins with prefix and is wanted.
func (m *meta) remove(bucket, prefix string, wanted func(key string) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for _, b := range []batch{m.pending, m.flushing} {
		for r := range b.puts {
			if r.bucket == bucket && strings.HasPrefix(r.key, prefix) && wanted(r.key) {
				keys = append(keys, r.key)
			}
		}
	}
	err := m.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket([]byte(bucket)).Cursor()
		for k, _ := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, _ = c.Next() {
			if wanted(string(k)) {
				keys = append(keys, string(k))
			}
		}
		return nil
	})
	for _, k := range keys {
		m.pending.puts[row{bucket, k}] = nil
	}
	return err
}
