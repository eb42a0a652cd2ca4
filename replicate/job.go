package replicate

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Key says what a job is to bring about; two jobs with one key are one job. Exactly one of Tag and Digest is set: "that
// this tag names what it names at the source", or "that this content exists".
type Key struct {
	Mirror      string // the mirror's name in the configuration
	Destination string // the destination's name within the mirror
	Repo        string // as the source names it
	Tag         string
	Digest      digest.Digest
}

func (k Key) String() string {
	if k.Tag != "" {
		return k.Mirror + " to " + k.Destination + ": " + k.Repo + ":" + k.Tag
	}
	return k.Mirror + " to " + k.Destination + ": " + k.Repo + "@" + k.Digest.String()
}

// Validate returns an error of class Invalid unless every part can stand in a key: names come from events, which anybody
// may forge.
func (k Key) Validate() error {
	bad := func(what, value string) error {
		return registry.Errorf(registry.Invalid, "job: %s %q: invalid", what, value)
	}
	name, err := reference.WithName(k.Repo)
	switch {
	case k.Mirror == "" || strings.ContainsRune(k.Mirror, 0):
		return bad("mirror", k.Mirror)
	case k.Destination == "" || strings.ContainsRune(k.Destination, 0):
		return bad("destination", k.Destination)
	case err != nil:
		return bad("repository", k.Repo)
	case (k.Tag == "") == (k.Digest == ""):
		return registry.Errorf(registry.Invalid, "job: either a tag or a digest, not %q and %q", k.Tag, k.Digest)
	case k.Digest != "" && k.Digest.Validate() != nil:
		return bad("digest", k.Digest.String())
	}
	if k.Tag != "" {
		if _, err := reference.WithTag(name, k.Tag); err != nil {
			return bad("tag", k.Tag)
		}
	}
	return nil
}

// encode returns the stored key, which must never change:
//
//	kind 0x00 mirror 0x00 destination 0x00 repository 0x00 (tag | digest)
//
// kind is 't' for a tag and 'c' for content. No part may hold 0x00. Keys of one mirror, destination and repository are
// neighbours in the file.
func (k Key) encode() []byte {
	kind, last := "c", k.Digest.String()
	if k.Tag != "" {
		kind, last = "t", k.Tag
	}
	return []byte(strings.Join([]string{kind, k.Mirror, k.Destination, k.Repo, last}, "\x00"))
}

func decodeKey(b []byte) (Key, error) {
	p := bytes.Split(b, []byte{0})
	if len(p) != 5 {
		return Key{}, fmt.Errorf("stored key %q: %d parts, not 5", b, len(p))
	}
	k := Key{Mirror: string(p[1]), Destination: string(p[2]), Repo: string(p[3])}
	switch string(p[0]) {
	case "t":
		k.Tag = string(p[4])
	case "c":
		k.Digest = digest.Digest(p[4])
	default:
		return Key{}, fmt.Errorf("stored key %q: unknown kind", b)
	}
	if err := k.Validate(); err != nil {
		return Key{}, fmt.Errorf("stored key %q: %w", b, err)
	}
	return k, nil
}

// State is where a job stands.
type State uint8

const (
	Pending  State = iota // to be done, at NextAt at the earliest
	Leased                // being done; in memory only: after a restart it is pending
	Dead                  // given up; Retry, or a new event for it, has it tried again
	Conflict              // the destination's tag is immutable and names another digest
)

func (s State) String() string { return [...]string{"pending", "leased", "dead", "conflict"}[s] }

// Job is the durable intent to bring Key about. Done jobs leave the queue; a Receipt stays.
type Job struct {
	Key
	Lane     registry.Lane
	Hint     digest.Digest // of a tag job: what the newest event said the tag names. Advisory: only the source decides
	SeenAt   time.Time     // when the source says that it was pushed, or when the miss happened; zero when unknown
	Bytes    int64         // that it may have to send; 0 when unknown
	Created  time.Time     // when the intent was written down
	NextAt   time.Time     // not to be tried before
	Attempts int           // failures so far
	Failing  time.Time     // the first of these; zero: none, or not known
	State    State
	Err      string // the last failure
	// Follow: it is wanted only if it is about an image that the destination has: see Image.Follow.
	Follow bool
	// Lent: whoever put it keeps the intent, durably, until Settle says that it is over. The file gets the job only when it
	// is given up.
	Lent bool
}

// refreshed is j after n asked for the same key. New information (another digest) starts it afresh; a repetition neither
// resets the delay nor the count of attempts, so that a storm of events cannot undo the backing off; but one that is more urgent
// does not wait for what j waits for, as tomorrow's byte budget. A job that was given up is tried again either way.
func (j Job) refreshed(n Job, now time.Time, maxAttempts int) Job {
	if n.Lane < j.Lane {
		j.Lane = n.Lane
		if j.NextAt.After(now) {
			j.NextAt = now
		}
	}
	j.Lent = j.Lent && n.Lent
	j.Follow = j.Follow && n.Follow
	j.Bytes = max(j.Bytes, n.Bytes)
	fresh := n.Hint != "" && n.Hint != j.Hint && !n.SeenAt.Before(j.SeenAt)
	switch {
	case fresh:
		j.Hint, j.SeenAt, j.Attempts, j.Err = n.Hint, n.SeenAt, 0, ""
	case j.SeenAt.IsZero() || !n.SeenAt.IsZero() && n.SeenAt.Before(j.SeenAt) && n.Hint == j.Hint:
		j.SeenAt = n.SeenAt
	}
	if fresh || j.State == Dead || j.State == Conflict {
		j.State, j.Created, j.NextAt, j.Attempts, j.Failing = Pending, now, now, min(j.Attempts, maxAttempts-1), time.Time{}
	}
	return j
}
