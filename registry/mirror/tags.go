package mirror

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	tagEntries    = 1 << 16 // tags in memory, some 400 bytes each; the least recently asked leaves first
	absentEntries = 1 << 14 // tags that do not exist, apart: anybody can ask for any number of them
	tagsOfOne     = 16      // tags remembered of one manifest: those last resolved to it
)

// tags is what is known of tags. An answer loaded from the store is never fresh, only the last known one: events may have
// been missed while the process was down.
type tags struct {
	store TagStore // may be nil
	log   *slog.Logger

	mu     sync.Mutex
	known  *simplelru.LRU[string, entry]     // what had an answer or an event
	absent *simplelru.LRU[string, time.Time] // until when a tag need not be asked for again
	byHash *simplelru.LRU[string, []string]  // repo@digest -> the tags last resolved to it, the latest at the end
	swept  uint64                            // counts invalidations of whole repositories, any of which ends the freshness of what is being asked
}

type entry struct {
	desc       registry.Descriptor
	at         time.Time // when an upstream said so; zero: nothing is known
	freshUntil time.Time
	generation uint64 // counts invalidations: an answer asked for before one is not fresh

	atSource digest.Digest // what the source last said; "": nothing
	reported digest.Digest // what was last reported of the tag
}

func newTags(store TagStore, log *slog.Logger) *tags {
	known, err := simplelru.NewLRU[string, entry](tagEntries, nil)
	absent, err2 := simplelru.NewLRU[string, time.Time](absentEntries, nil)
	byHash, err3 := simplelru.NewLRU[string, []string](tagEntries, nil)
	if err != nil || err2 != nil || err3 != nil {
		panic("mirror: tag cache of no size") // unreachable: its only error is a size below 1
	}
	return &tags{store: store, log: log, known: known, absent: absent, byHash: byHash}
}

func tagKey(repo, tag string) string { return repo + ":" + tag }

func hashKey(repo string, d digest.Digest) string { return repo + "@" + d.String() }

// get returns what memory knows; the zero entry is nothing.
func (t *tags) get(repo, tag string) entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, _ := t.known.Get(tagKey(repo, tag))
	return e
}

// goneUntil returns when a tag that did not exist is to be asked for again; zero if it is not known to be absent.
func (t *tags) goneUntil(repo, tag string) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, _ := t.absent.Get(tagKey(repo, tag))
	return until
}

// generation is what an answer's asker notes before it asks.
func (t *tags) generation(repo, tag string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, _ := t.known.Get(tagKey(repo, tag))
	return e.generation + t.swept
}

// last returns the last known answer of any age.
func (t *tags) last(repo, tag string) (registry.Descriptor, time.Time, bool) {
	if e := t.get(repo, tag); !e.at.IsZero() {
		return e.desc, e.at, true
	}
	if t.store == nil {
		return registry.Descriptor{}, time.Time{}, false
	}
	return t.store.Load(repo, tag)
}

// learned remembers an answer, the source's or another's, that was asked for in generation, as fresh until then. If an event
// came since, the answer may be older than the event: it is never fresh and replaces nothing.
func (t *tags) learned(repo, tag string, d registry.Descriptor, source bool, at, until time.Time, generation uint64) {
	t.mu.Lock()
	e, _ := t.known.Get(tagKey(repo, tag))
	if e.generation+t.swept != generation {
		if !e.at.IsZero() {
			t.mu.Unlock()
			return
		}
		until = time.Time{}
	}
	e.desc, e.at, e.freshUntil = d, at, until
	if source {
		e.atSource = d.Digest
	}
	t.known.Add(tagKey(repo, tag), e)
	t.absent.Remove(tagKey(repo, tag))
	names, _ := t.byHash.Get(hashKey(repo, d.Digest))
	names = append(slices.DeleteFunc(names, func(n string) bool { return n == tag }), tag)
	t.byHash.Add(hashKey(repo, d.Digest), names[max(0, len(names)-tagsOfOne):])
	t.mu.Unlock()
	if t.store != nil {
		if err := t.store.Save(repo, tag, d, at); err != nil {
			t.log.Warn("save tag", "repo", repo, "tag", tag, "err", err)
		}
	}
}

// gone forgets the answer, here and in the store, and remembers the absence until then; nothing if an event came since.
func (t *tags) gone(repo, tag string, until time.Time, generation uint64) {
	t.mu.Lock()
	e, had := t.known.Peek(tagKey(repo, tag))
	if e.generation+t.swept != generation {
		t.mu.Unlock()
		return
	}
	if had { // else it would take the place of a tag that exists
		t.known.Add(tagKey(repo, tag), entry{generation: e.generation})
	}
	t.absent.Add(tagKey(repo, tag), until)
	t.mu.Unlock()
	if t.store != nil {
		if err := t.store.Delete(repo, tag); err != nil {
			t.log.Warn("delete tag", "repo", repo, "tag", tag, "err", err)
		}
	}
}

// invalidate ends the freshness and the absence of a tag, or with tag "" of all of repo's, and returns their keys.
func (t *tags) invalidate(repo, tag string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if tag != "" {
		key := tagKey(repo, tag)
		e, _ := t.known.Get(key)
		e.freshUntil = time.Time{}
		e.generation++
		t.known.Add(key, e)
		t.absent.Remove(key)
		return []string{key}
	}
	t.swept++ // for tags that are being asked for, known or not
	var keys []string
	for _, k := range t.known.Keys() {
		if e, _ := t.known.Peek(k); strings.HasPrefix(k, repo+":") { // a repository name holds no colon
			e.freshUntil = time.Time{}
			t.known.Add(k, e)
			keys = append(keys, k)
		}
	}
	for _, k := range t.absent.Keys() {
		if strings.HasPrefix(k, repo+":") {
			t.absent.Remove(k)
			keys = append(keys, k)
		}
	}
	return keys
}

// dangling returns the tags that are known to name the object: their answers are wrong if there is none.
func (t *tags) dangling(o registry.Object) (names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, _ := t.byHash.Get(hashKey(o.Repo, o.Digest))
	for _, tag := range all {
		if e, _ := t.known.Peek(tagKey(o.Repo, tag)); e.desc.Digest == o.Digest && !e.freshUntil.IsZero() {
			names = append(names, tag)
		}
	}
	return names
}

// purge is invalidate that leaves nothing to answer with, in memory or in the store.
func (t *tags) purge(repo, tag string) ([]string, error) {
	keys := t.invalidate(repo, tag)
	t.mu.Lock()
	for _, k := range keys {
		if e, ok := t.known.Peek(k); ok {
			t.known.Add(k, entry{generation: e.generation})
		}
	}
	t.mu.Unlock()
	if t.store == nil {
		return keys, nil
	}
	return keys, t.store.Delete(repo, tag)
}

// tagOf returns the tag that was last resolved to the object, or "".
func (t *tags) tagOf(o registry.Object) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names, _ := t.byHash.Get(hashKey(o.Repo, o.Digest))
	if len(names) == 0 {
		return ""
	}
	return names[len(names)-1]
}

// owed returns the tags of which the source last said that they name the object, and of which that has not been reported. From
// now on it has.
func (t *tags) owed(o registry.Object) (owed []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	names, _ := t.byHash.Get(hashKey(o.Repo, o.Digest))
	for _, tag := range names {
		if e, _ := t.known.Get(tagKey(o.Repo, tag)); e.atSource == o.Digest && e.reported != o.Digest {
			e.reported = o.Digest
			t.known.Add(tagKey(o.Repo, tag), e)
			owed = append(owed, tag)
		}
	}
	return owed
}

// owe takes back that a tag has been reported.
func (t *tags) owe(repo, tag string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.known.Get(tagKey(repo, tag)); ok {
		e.reported = ""
		t.known.Add(tagKey(repo, tag), e)
	}
}
