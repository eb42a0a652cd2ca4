package admin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"log/slog"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// DeadLetter is what waits for an operator: a job that was given up, or a message that could not become a job.
type DeadLetter struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind"` // job or event
	Mirror      string    `json:"mirror"`
	Destination string    `json:"destination,omitempty"`
	Repository  string    `json:"repository,omitempty"`
	Tag         string    `json:"tag,omitempty"`
	Digest      string    `json:"digest,omitempty"`
	State       string    `json:"state,omitempty"` // of a job: dead or conflict
	Reason      string    `json:"reason"`
	Times       int       `json:"times"` // attempts of a job, deliveries of a message
	First       time.Time `json:"first"` // when the job was written down, when the message came
	Last        time.Time `json:"last,omitzero"`
	Size        int       `json:"size,omitempty"` // of the message in bytes
	Body        string    `json:"body,omitempty"` // the message; only of one letter, not in a list
	Raw         []byte    `json:"raw,omitempty"`  // the same in base64 if it is no text
}

// deadLetters answers GET /dead-letters (one JSON object to a line), GET and DELETE /dead-letters/ID, and POST
// /dead-letters/ID/retry. A metrics collector has no business here.
type deadLetters struct {
	queue *replicate.Queue
	take  map[string]events.Handle // by mirror
	log   *slog.Logger
}

func (d *deadLetters) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /dead-letters", d.list)
	mux.HandleFunc("GET /dead-letters/{id}", d.one(d.show))
	mux.HandleFunc("DELETE /dead-letters/{id}", d.one(d.drop))
	mux.HandleFunc("POST /dead-letters/{id}/retry", d.one(d.retry))
	return mux
}

func (d *deadLetters) all(ctx context.Context) iter.Seq2[found, error] {
	return func(yield func(found, error) bool) {
		for j, err := range d.queue.Dead(ctx) {
			if !yield(found{job: j}, err) || err != nil {
				return
			}
		}
		for l, err := range d.queue.Letters(ctx) {
			if !yield(found{letter: l}, err) || err != nil {
				return
			}
		}
	}
}

// jobID is as long as a Letter's: what can be typed.
func jobID(k replicate.Key) string {
	sum := sha256.Sum256([]byte(k.ID()))
	return hex.EncodeToString(sum[:8])
}

func ofJob(j replicate.Job) DeadLetter {
	return DeadLetter{ID: jobID(j.Key), Kind: "job", Mirror: j.Mirror, Destination: j.Destination, Repository: j.Repo, Tag: j.Tag,
		Digest: string(j.Digest), State: j.State.String(), Reason: j.Err, Times: j.Attempts, First: j.Created}
}

func ofLetter(l replicate.Letter) DeadLetter {
	return DeadLetter{ID: l.ID, Kind: "event", Mirror: l.Mirror, Reason: l.Reason, Times: l.Times, First: l.First, Last: l.Last, Size: l.Size}
}

func (d *deadLetters) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	for f, err := range d.all(r.Context()) {
		if err == nil {
			err = out.Encode(f.brief())
		}
		if err != nil {
			d.log.Warn("dead letters", "error", err)
			panic(http.ErrAbortHandler) // else the list would look complete
		}
	}
}

// one finds what the path names, has act deal with it and answers with what it returns, or with why not.
func (d *deadLetters) one(act func(context.Context, found) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := d.find(r.Context(), r.PathValue("id"))
		var v any
		if err == nil {
			v, err = act(r.Context(), f)
		}
		answer(w, v, err)
	}
}

// found is a job, or a letter if that has an ID.
type found struct {
	job    replicate.Job
	letter replicate.Letter
}

// brief is what of it stands in a list.
func (f found) brief() DeadLetter {
	if f.letter.ID == "" {
		return ofJob(f.job)
	}
	return ofLetter(f.letter)
}

func (d *deadLetters) find(ctx context.Context, id string) (found, error) {
	l, err := d.queue.Letter(ctx, id)
	if registry.ClassOf(err) != registry.NotFound || err == nil {
		return found{letter: l}, err
	}
	for j, err := range d.queue.Dead(ctx) {
		if err != nil {
			return found{}, err
		}
		if jobID(j.Key) == id {
			return found{job: j}, nil
		}
	}
	return found{}, registry.Errorf(registry.NotFound, "dead letter %.64q: not found", id)
}

func (d *deadLetters) show(_ context.Context, f found) (any, error) {
	v := f.brief()
	if f.letter.ID == "" {
		return v, nil
	}
	if utf8.Valid(f.letter.Body) {
		v.Body = string(f.letter.Body)
	} else {
		v.Raw = f.letter.Body
	}
	return v, nil
}

func (d *deadLetters) drop(ctx context.Context, f found) (any, error) {
	if f.letter.ID == "" {
		return f.brief(), d.queue.Forget(ctx, f.job.Key)
	}
	return f.brief(), d.queue.ForgetLetter(ctx, f.letter.ID)
}

// retry has the job tried now, or the message taken once more; a message that still cannot be taken stays, and that is the
// error.
func (d *deadLetters) retry(ctx context.Context, f found) (any, error) {
	l := f.letter
	if l.ID == "" {
		return f.brief(), d.queue.Retry(ctx, f.job.Key)
	}
	take := d.take[l.Mirror]
	switch {
	case take == nil:
		return nil, registry.Errorf(registry.Invalid, "mirror %q has no events in the configuration", l.Mirror)
	case l.Size > len(l.Body):
		return nil, registry.Errorf(registry.Invalid, "only %d of its %d bytes were kept", len(l.Body), l.Size)
	}
	if err := events.Retry(ctx, l.Body, take); err != nil {
		return nil, err
	}
	return f.brief(), d.queue.ForgetLetter(ctx, l.ID)
}
