package replicate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// ErrEcho means that what was to be copied came from the destination itself, by way of other mirrors of this process, or was
// there and gave way to what will come back from there: to copy it would undo what was pushed there since. It comes wrapped.
var ErrEcho = errors.New("the destination knows better")

// Trail knows where that comes from which this process wrote to a registry that it also reads from, so that mirrors can be
// chained, and even mutual, without going round in circles: nothing is copied to a registry that it went through. A nil Trail
// knows nothing.
//
// What is known of a tag counts as long as it names what was written: a push by somebody else is a new beginning. What was
// written so long ago that the queue's MaxTrails others came after it is not known any more.
type Trail struct {
	Queue               *Queue
	Source, Destination string // their registries; the same one has one name in all Trails
	// Mutual reports whether another mirror copies the tag of that repository of the source, as the destination has it, to
	// where it came from. nil: none does.
	Mutual func(repo, tag string) bool
}

// The file: bucket "trails" holds a storedTrail as JSON under registry 0x00 repository 0x00 (tag | digest), the names being
// those that the registry uses. What may change: see jobsBucket.
const trailsBucket = "trails"

type storedTrail struct {
	Digest digest.Digest `json:"digest"`
	Via    []string      `json:"via"`            // registries, the first being where it was pushed
	Done   bool          `json:"done,omitempty"` // of a tag: it was seen at the destination
	At     time.Time     `json:"at,omitzero"`    // when this was written
	// Before is what the tag named when Digest was about to be written, if that is known: the write may have failed.
	Before *storedTrail `json:"before,omitempty"`
}

// of returns the part that is about d; nil: there is none.
func (s *storedTrail) of(d digest.Digest) *storedTrail {
	for ; s != nil; s = s.Before {
		if s.Digest == d {
			return s
		}
	}
	return nil
}

// says reports whether s is the same as n but for when it was written.
func (s *storedTrail) says(n *storedTrail) bool {
	if s == nil {
		return false
	}
	was := *s
	was.At = n.At
	return reflect.DeepEqual(&was, n)
}

func trailKey(registry, repo, ref string) []byte {
	return []byte(strings.Join([]string{registry, repo, ref}, "\x00"))
}

// ref is what the source's repo calls d: a tag, or "" for content.
func ref(tag string, d digest.Digest) string {
	if tag == "" {
		return d.String()
	}
	return tag
}

// Echo reports whether d, which repo of the source has under tag, or without one as content, came from the destination. have
// is what the tag names at the destination, in its repository there; "" if nothing.
//
// With mutual mirrors it is an echo, too, if d was there before and somebody replaced it: that is newer, and comes here. And two
// that overtook each other may have written both sides, so that each has what came from the other. Then one has to give in: it
// is no echo to the one whose source's name comes first.
func (t *Trail) Echo(repo, there, tag string, d, have digest.Digest) (echo bool, err error) {
	if t == nil {
		return false, nil
	}
	err = t.Queue.db.View(func(tx *bolt.Tx) error {
		if have != "" && t.Mutual != nil && t.Mutual(repo, tag) {
			there, err := readTrail(tx, trailKey(t.Destination, there, tag))
			if err != nil || there != nil && there.Done && there.Digest == d && d != have {
				echo = err == nil
				return err
			}
		}
		via, err := viaOf(tx, t.Source, repo, tag, d)
		if echo = slices.Contains(via, t.Destination); !echo || have == "" || t.Source > t.Destination {
			return err
		}
		back, err := viaOf(tx, t.Destination, there, tag, have)
		echo = !slices.Contains(back, t.Source)
		return err
	})
	return echo, internal(err)
}

// viaOf returns through which registries d came to be what the tag names, or content, in a repository of a registry.
func viaOf(tx *bolt.Tx, registry, repo, tag string, d digest.Digest) ([]string, error) {
	s, err := readTrail(tx, trailKey(registry, repo, ref(tag, d)))
	if s = s.of(d); s == nil {
		return nil, err
	}
	return s.Via, err
}

// readTrail returns nil if there is none.
func readTrail(tx *bolt.Tx, key []byte) (s *storedTrail, err error) {
	v := tx.Bucket([]byte(trailsBucket)).Get(key)
	if v == nil {
		return nil, nil
	}
	return decodeTrail(key, v)
}

func decodeTrail(key, value []byte) (*storedTrail, error) {
	s := new(storedTrail)
	if err := json.Unmarshal(value, s); err != nil {
		return s, fmt.Errorf("trail %q: %w", key, err)
	}
	return s, nil
}

// note is called before d is written to the repository to, under tag unless that is "", which names have: the write's event may
// come before its answer. It is durable when note returns.
func (t *Trail) note(ctx context.Context, from, to, tag string, d, have digest.Digest) error {
	return t.edit(ctx, func(tx *bolt.Tx, changes map[string]*storedTrail) error {
		for _, tag := range []string{"", tag} {
			known, err := t.known(tx, changes, from, tag, d)
			if err != nil {
				return err
			}
			s := &storedTrail{Digest: d, Via: []string{t.Source}}
			if known != nil {
				s.Via = append(slices.Clone(known.Via), t.Source)
			}
			key := trailKey(t.Destination, to, ref(tag, d))
			there, err := readTrail(tx, key)
			if err != nil {
				return err
			}
			if before := there.of(have); before != nil && have != d {
				s.Before = &storedTrail{Digest: before.Digest, Via: before.Via}
			}
			if !there.says(s) {
				changes[string(key)] = s
			}
		}
		return nil
	})
}

// seen is called when tag names d at both ends.
func (t *Trail) seen(ctx context.Context, from, to, tag string, d digest.Digest) error {
	return t.edit(ctx, func(tx *bolt.Tx, changes map[string]*storedTrail) error {
		if _, err := t.known(tx, changes, from, tag, d); err != nil {
			return err
		}
		key := trailKey(t.Destination, to, tag)
		there, err := readTrail(tx, key)
		if there != nil && there.Digest == d && !there.Done {
			changes[string(key)] = &storedTrail{Digest: d, Via: there.Via, Done: true}
		}
		return err
	})
}

// known returns what is known of d at the source. What is known of a tag that names d, but something else, is forgotten: the tag
// was pushed since, and must not be taken for what it was when it is moved back.
func (t *Trail) known(tx *bolt.Tx, changes map[string]*storedTrail, repo, tag string, d digest.Digest) (*storedTrail, error) {
	key := trailKey(t.Source, repo, ref(tag, d))
	s, err := readTrail(tx, key)
	if s.of(d) == nil && s != nil && s.Done { // else it is about to be written
		changes[string(key)] = nil
	}
	return s.of(d), err
}

// edit writes down the changes that f makes, by key; nil: forget. Mostly there are none.
func (t *Trail) edit(ctx context.Context, f func(*bolt.Tx, map[string]*storedTrail) error) error {
	if t == nil {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	changes := make(map[string]*storedTrail)
	err := t.Queue.db.View(func(tx *bolt.Tx) error { return f(tx, changes) })
	if err != nil || len(changes) == 0 {
		return internal(err)
	}
	now, added := time.Now(), 0
	err = t.Queue.inFile(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(trailsBucket))
		for key, s := range changes {
			if s != nil && b.Get([]byte(key)) == nil {
				added++
			}
			if err := s.store(b, []byte(key), now); err != nil {
				return fmt.Errorf("trail %q: %w", key, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.Queue.trails.Add(int64(added)) // what was forgotten is found out when there seem to be too many
	return t.Queue.trimTrails(ctx)
}

func (s *storedTrail) store(b *bolt.Bucket, key []byte, now time.Time) error {
	if s == nil {
		return b.Delete(key)
	}
	s.At = now
	v, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return b.Put(key, v)
}

// echo returns ErrEcho if it is one.
func (t *transfer) echo(tag string, d, have digest.Digest) error {
	echo, err := t.im.Destination.Trail.Echo(t.im.Repo, t.repo, tag, d, have)
	if err == nil && echo {
		err = fmt.Errorf("%s %s: %w", t.im.Repo, ref(tag, d), ErrEcho)
	}
	return err
}
