package replicate_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// The file as it is after each step (a kill -9 there) holds every job that is not done.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "queue.db")
		q := openQueue(t, path)
		q.MaxAttempts = 1
		reopened := 0
		survives := func(step string, want ...replicate.Job) {
			t.Helper()
			b, err := os.ReadFile(path)
			must(t, err)
			reopened++
			copied := filepath.Join(dir, fmt.Sprint(reopened))
			must(t, os.WriteFile(copied, b, 0o600))
			again := openQueue(t, copied)
			if diff := cmp.Diff(want, all(t, again)); diff != "" {
				t.Errorf("after %s (-want +got):\n%s", step, diff)
			}
			must(t, again.Close())
		}
		job := tagJob("app", "v1", d1, time.Time{})
		survives("open")
		put(t, q, job)
		survives("put", job)
		j := lease(t, q)
		survives("lease", job)
		q.Release(j)
		survives("release", job)
		j = lease(t, q)
		job2 := job
		job2.Hint = d2
		put(t, q, job2)
		survives("put while leased", job2)
		must(t, q.Done(j))
		survives("done, but put meanwhile", job2)
		j = lease(t, q)
		_, err := q.Fail(j, registry.Denied)
		must(t, err)
		dead := job2
		dead.State, dead.Attempts, dead.Failing, dead.Err = replicate.Dead, 1, time.Now().UTC(), "denied"
		survives("failure", dead)
		must(t, q.Retry(t.Context(), j.Key))
		retried := job2
		retried.Err = "denied"
		survives("retry", retried)
		r := replicate.Receipt{Key: contentJob("app", d2).Key, PullableAt: time.Now().UTC(), Bytes: 5}
		must(t, q.Done(lease(t, q), r))
		survives("done")
		must(t, q.Close())
		q = openQueue(t, path)
		got, ok, err := q.Receipt(r.Key)
		if diff := cmp.Diff(r, got); diff != "" || !ok || err != nil {
			t.Errorf("receipt after a restart: %v %v (-want +got):\n%s", ok, err, diff)
		}
	})
}

func TestReceipts(t *testing.T) {
	q := newQueue(t)
	at := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	file := func(r replicate.Receipt) {
		put(t, q, contentJob("app", d1))
		must(t, q.Done(lease(t, q), r))
	}
	ours := replicate.Receipt{Key: contentJob("app", d1).Key, SeenAt: at, PullableAt: at.Add(time.Second), Bytes: 7}
	found := ours
	found.Found, found.Bytes = true, 0
	other := replicate.Receipt{Key: contentJob("b", d1).Key, PullableAt: at}
	file(ours)
	file(found) // a later look finds it there: it is still ours
	file(other)
	var got []replicate.Receipt
	for r, err := range q.Receipts(t.Context()) {
		must(t, err)
		got = append(got, r)
	}
	if diff := cmp.Diff([]replicate.Receipt{ours, other}, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	for range q.Receipts(t.Context()) {
		break
	}
	if _, ok, err := q.Receipt(contentJob("c", d1).Key); ok || err != nil {
		t.Errorf("receipt of nothing: %v %v", ok, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "queue.db")
	q := openQueue(t, path)
	if _, err := replicate.OpenQueue(path); err == nil {
		t.Error("a queue was opened twice")
	}
	must(t, q.Close())
	must(t, q.Close())
	for name, kv := range map[string][2]string{
		"key":   {"x\x00m\x00d\x00app\x00v1", `{}`},
		"parts": {"t\x00m", `{}`},
		"json":  {"t\x00m\x00d\x00app\x00v1", `{`},
		"lane":  {"t\x00m\x00d\x00app\x00v1", `{"lane":"express","state":"pending"}`},
		"state": {"t\x00m\x00d\x00app\x00v1", `{"lane":"event","state":"done"}`},
	} {
		path := filepath.Join(dir, name)
		must(t, openQueue(t, path).Close())
		db, err := bolt.Open(path, 0o600, nil)
		must(t, err)
		must(t, db.Update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("jobs")).Put([]byte(kv[0]), []byte(kv[1])) }))
		must(t, db.Close())
		if _, err := replicate.OpenQueue(path); err == nil || !strings.Contains(err.Error(), "stored") {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
}

// The layout of the file: what an older program wrote is read as it was meant.
func TestStoredForm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	must(t, openQueue(t, path).Close())
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		return errors.Join(
			tx.Bucket([]byte("jobs")).Put([]byte("t\x00m\x00d\x00team/app\x00v1"), []byte(`{"lane":"sweep","hint":"`+d1+
				`","seen":"2026-11-21T10:00:00Z","created":"2026-11-21T10:00:01Z","next":"2026-11-21T10:00:02Z","attempts":2,"state":"dead","error":"e"}`)),
			tx.Bucket([]byte("jobs")).Put([]byte("c\x00m\x00d\x00app\x00"+d2), []byte(`{"lane":"client","created":"2026-11-21T10:00:01Z","next":"2926-11-21T10:00:02Z","state":"pending"}`)))
	}))
	must(t, db.Close())
	q := openQueue(t, path)
	at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	want := tagJob("team/app", "v1", d1, at)
	want.Lane, want.Created, want.NextAt, want.Attempts, want.State, want.Err =
		registry.LaneSweep, at.Add(time.Second), at.Add(2*time.Second), 2, replicate.Dead, "e"
	for j := range q.Dead(t.Context()) {
		if diff := cmp.Diff(want, j); diff != "" {
			t.Errorf("stored job (-want +got):\n%s", diff)
		}
	}
	if n := q.Pending(); n.Dead != 1 {
		t.Errorf("counts: %+v", n)
	}
	if j := lease(t, q); j.Digest != d2 || j.Lane != registry.LaneClient { // its time to come, in 900 years, is not believed
		t.Errorf("leased %+v", j)
	}
}
