package replicate

import (
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Whatever a row of the file holds, it is read as what it says or refused, and what was read is written as it was.
func FuzzStored(f *testing.F) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	content := Key{Mirror: "m", Destination: "d", Repo: "team/app", Digest: digest.FromString("1")}
	tag := Key{Mirror: "m", Destination: "d", Repo: "team/app", Tag: "v1"}
	for _, k := range []Key{content, tag} {
		job, err := encodeJob(Job{Key: k, Hint: content.Digest, SeenAt: at, Created: at, NextAt: at, Attempts: 3, State: Dead, Err: "no"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.encode(), job)
	}
	receipt, err := encodeReceipt(Receipt{Key: tag, Digest: content.Digest, PullableAt: at, Bytes: 7, Found: true, Partial: "linux/amd64"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(tag.encode(), receipt)
	f.Add(content.encode(), []byte(`{"at":"2026-11-21T12:00:00Z","heard":"2026-11-21T12:00:01Z","explicit":true,"attempts":2,"error":"refused"}`))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if k, err := decodeKey(key); err == nil {
			if again, err := ParseID(k.ID()); err != nil || again != k {
				t.Errorf("key %q is %+v again: %v", key, again, err)
			}
		}
		if j, err := decodeJob(key, value); err == nil {
			v, err := encodeJob(j)
			if err != nil {
				return // a year beyond 9999
			}
			if again, err := decodeJob(j.encode(), v); err != nil || len(j.Err) <= maxErr && !reflect.DeepEqual(again, j) {
				t.Errorf("job %+v is %+v again: %v", j, again, err)
			}
		}
		if r, err := decodeReceipt(key, value); err == nil {
			v, err := encodeReceipt(r)
			if err != nil {
				return
			}
			if again, err := decodeReceipt(r.Key.encode(), v); err != nil || !reflect.DeepEqual(again, r) {
				t.Errorf("receipt %+v is %+v again: %v", r, again, err)
			}
		}
		if d, err := decodeDeletion(key, value); err == nil && d.Validate() != nil {
			t.Errorf("deletion %+v", d)
		}
		_, _ = decodeTrail(key, value) // it has no invariant of its own
	})
}
