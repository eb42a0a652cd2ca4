package replicate

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// The file: bucket "jobs" holds a storedJob and bucket "receipts" a storedReceipt, as JSON, under Key.encode.
//
// What may change: a field may be added, and its absence must mean what the older program did. No field may be renamed,
// retyped or given another meaning. Lanes and states are stored by name, so their constants may be reordered. Anything
// more takes a new bucket name and a migration in OpenQueue.
const (
	jobsBucket     = "jobs"
	receiptsBucket = "receipts"
)

type storedJob struct {
	Lane     string        `json:"lane"`
	Hint     digest.Digest `json:"hint,omitempty"`
	Seen     time.Time     `json:"seen,omitzero"`
	Created  time.Time     `json:"created"`
	Next     time.Time     `json:"next"`
	Attempts int           `json:"attempts,omitempty"`
	State    string        `json:"state"` // never "leased"
	Err      string        `json:"error,omitempty"`
	Follow   bool          `json:"follow,omitempty"`
	Bytes    int64         `json:"bytes,omitempty"`
	Failing  time.Time     `json:"failing,omitzero"`
}

type storedReceipt struct {
	Seen     time.Time     `json:"seen,omitzero"`
	Pullable time.Time     `json:"pullable"`
	Bytes    int64         `json:"bytes,omitempty"`
	Found    bool          `json:"found,omitempty"`
	Digest   digest.Digest `json:"digest,omitempty"` // of a tag's
	Partial  string        `json:"partial,omitempty"`
}

// maxErr bounds the stored text of a failure, in bytes: it may quote what a registry answered.
const maxErr = 1 << 10

func encodeJob(j Job) ([]byte, error) {
	if len(j.Err) > maxErr {
		j.Err = strings.ToValidUTF8(j.Err[:maxErr], "")
	}
	return json.Marshal(storedJob{j.Lane.String(), j.Hint, j.SeenAt, j.Created, j.NextAt, j.Attempts, j.State.String(), j.Err, j.Follow, j.Bytes, j.Failing})
}

func decodeJob(key, value []byte) (Job, error) {
	k, err := decodeKey(key)
	if err != nil {
		return Job{}, err
	}
	var s storedJob
	if err := json.Unmarshal(value, &s); err != nil {
		return Job{}, fmt.Errorf("stored job %v: %w", k, err)
	}
	j := Job{Key: k, Hint: s.Hint, SeenAt: s.Seen, Created: s.Created, NextAt: s.Next, Attempts: s.Attempts, Err: s.Err, Follow: s.Follow, Bytes: s.Bytes, Failing: s.Failing}
	for l := registry.LaneClient; l.String() != s.Lane; {
		if l++; l >= lanes {
			return Job{}, fmt.Errorf("stored job %v: unknown lane %q", k, s.Lane)
		}
		j.Lane = l
	}
	for _, st := range []State{Pending, Dead, Conflict} {
		if st.String() == s.State {
			j.State = st
			return j, nil
		}
	}
	return Job{}, fmt.Errorf("stored job %v: unknown state %q", k, s.State)
}

// Receipt says that content is complete at a destination, or that a tag names it there.
type Receipt struct {
	Key        Key
	Digest     digest.Digest // what the tag named then; "" where Key is of content
	SeenAt     time.Time     // as in the Job
	PullableAt time.Time
	Bytes      int64 // sent for it
	Found      bool  // it was there before this queue did anything: somebody else's copy
	// Partial names the platforms of an index whose images are there when others are not wanted: see Result.Partial.
	Partial string
}

func encodeReceipt(r Receipt) ([]byte, error) {
	return json.Marshal(storedReceipt{r.SeenAt, r.PullableAt, r.Bytes, r.Found, r.Digest, r.Partial})
}

func decodeReceipt(key, value []byte) (Receipt, error) {
	k, err := decodeKey(key)
	if err != nil {
		return Receipt{}, err
	}
	var s storedReceipt
	if err := json.Unmarshal(value, &s); err != nil {
		return Receipt{}, fmt.Errorf("stored receipt %v: %w", k, err)
	}
	return Receipt{k, s.Digest, s.Seen, s.Pullable, s.Bytes, s.Found, s.Partial}, nil
}
