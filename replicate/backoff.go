package replicate

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxRetryAfter bounds what a registry may make a job wait.
const maxRetryAfter = time.Hour

func (q *Queue) maxAttempts() int        { return cmp.Or(q.MaxAttempts, 10) }
func (q *Queue) minDelay() time.Duration { return cmp.Or(q.MinDelay, time.Second) }
func (q *Queue) maxDelay() time.Duration { return cmp.Or(q.MaxDelay, 10*time.Minute) }
func (q *Queue) patience() time.Duration { return cmp.Or(q.Patience, 24*time.Hour) }

// verdict is j after it failed with cause. again: it was put while it failed.
//
// What can never succeed is dead at once. Throttling and outages pass: they make a job dead only when they lasted for
// Patience, so that an outage costs nobody a dead letter. All else, defects and refusals included, gets MaxAttempts: most
// of it (a full disk, a role being repaired) passes too.
func (q *Queue) verdict(j Job, cause error, again bool, now time.Time) Job {
	if j.Attempts++; j.Failing.IsZero() {
		j.Failing = now
	}
	j.Err = cause.Error()
	j.NextAt = now.Add(q.delay(j.Attempts, cause))
	j.State = Dead
	dead := j.Attempts >= q.maxAttempts()
	switch registry.ClassOf(cause) {
	case registry.Conflict:
		j.State, dead = Conflict, true
	case registry.Throttled, registry.Unavailable:
		dead = dead && now.Sub(j.Failing) >= q.patience()
	case registry.NotFound, registry.Invalid:
		dead = dead || !retryable(cause)
	}
	if !dead || again {
		j.State = Pending
	}
	return j
}

// retryable reports whether a NotFound or Invalid may pass: the destination lost something between the check and the
// manifest that needs it, and the next attempt checks anew.
func retryable(err error) bool {
	var at *placeError
	if !errors.As(err, &at) || !at.destination {
		return false
	}
	code := registry.CodeOf(err)
	return code == codeManifestBlobUnknown || registry.ClassOf(err) == registry.NotFound && code != registry.CodeNameUnknown
}

// codeManifestBlobUnknown is code-5 of the OCI distribution specification's "Error Codes": a manifest came before what it
// refers to.
const codeManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN"

// delay doubles with each attempt, jittered down to its half so that jobs that failed together do not return together. A
// longer wait that the registry asked for is respected.
func (q *Queue) delay(attempts int, cause error) time.Duration {
	d := q.maxDelay()
	if n := attempts - 1; n < 30 {
		d = min(d, q.minDelay()<<n)
	}
	d = d/2 + rand.N(d/2+1)
	var e *registry.Error
	if errors.As(cause, &e) {
		d = max(d, min(e.RetryAfter, maxRetryAfter))
	}
	return d
}
