package replicate_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openQueue(t testing.TB, path string) *replicate.Queue {
	t.Helper()
	q, err := replicate.OpenQueue(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func newQueue(t testing.TB) *replicate.Queue {
	t.Helper()
	return openQueue(t, filepath.Join(t.TempDir(), "queue.db"))
}

func tagJob(repo, tag string, hint digest.Digest, seen time.Time) replicate.Job {
	return replicate.Job{Key: replicate.Key{Mirror: "m", Destination: "d", Repo: repo, Tag: tag}, Lane: registry.LaneEvent, Hint: hint, SeenAt: seen}
}

func contentJob(repo string, d digest.Digest) replicate.Job {
	return replicate.Job{Key: replicate.Key{Mirror: "m", Destination: "d", Repo: repo, Digest: d}, Lane: registry.LaneEvent}
}

func put(t testing.TB, q *replicate.Queue, jobs ...replicate.Job) {
	t.Helper()
	if err := q.Put(t.Context(), jobs...); err != nil {
		t.Fatal(err)
	}
}

func lease(t testing.TB, q *replicate.Queue) replicate.Job {
	t.Helper()
	j, err := q.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// all returns the queue's jobs without what depends on the clock.
func all(t testing.TB, q *replicate.Queue) []replicate.Job {
	t.Helper()
	var jobs []replicate.Job
	for j, err := range q.Jobs(t.Context()) {
		must(t, err)
		j.Created, j.NextAt, j.SeenAt = time.Time{}, time.Time{}, time.Time{}
		jobs = append(jobs, j)
	}
	return jobs
}
