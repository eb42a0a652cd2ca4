package storage

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Tags remembers what the tags of one namespace named when they were last resolved, across restarts. It decides nothing:
// how old an answer may be is the caller's policy. Safe for concurrent use.
type Tags struct {
	s         *Store
	namespace string
}

// Tags returns the tags of a namespace.
func (s *Store) Tags(namespace string) Tags { return Tags{s, namespace} }

// tagRow is the stored form of a tag. Fields may be added; these keep their names and meaning.
type tagRow struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
	At        time.Time     `json:"at"`
}

func (t Tags) key(repo, tag string) string {
	return strings.Join([]string{t.namespace, repo, tag}, "\x00")
}

// Load returns what the tag named and when that was so; false when nothing is known.
func (t Tags) Load(repo, tag string) (d registry.Descriptor, at time.Time, ok bool) {
	var r tagRow
	v := t.s.meta.tag(t.key(repo, tag))
	if v == nil || json.Unmarshal(v, &r) != nil || r.Digest.Validate() != nil {
		return registry.Descriptor{}, time.Time{}, false
	}
	return registry.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.Size}, r.At, true
}

// Save stores what the tag named at a time. It is seen at once and durable within a second or at Close.
func (t Tags) Save(repo, tag string, d registry.Descriptor, at time.Time) error {
	v, err := json.Marshal(tagRow{d.MediaType, d.Digest, d.Size, at})
	if err != nil {
		return fmt.Errorf("save tag %s:%s: %w", repo, tag, err)
	}
	t.s.meta.putTag(t.key(repo, tag), v)
	t.s.flushSoon()
	return nil
}

// Delete forgets the tag, or with tag "" every tag of repo; what is not known is success.
func (t Tags) Delete(repo, tag string) error {
	if tag != "" {
		key := t.key(repo, tag)
		if t.s.meta.tag(key) == nil { // most are: signatures that clients ask for in vain
			return nil
		}
		t.s.meta.putTag(key, nil)
	} else if err := t.s.meta.dropTagsOf(t.key(repo, "")); err != nil {
		return fmt.Errorf("forget the tags of %s: %w", repo, err)
	}
	t.s.flushSoon()
	return nil
}
