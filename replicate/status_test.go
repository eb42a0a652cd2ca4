package replicate_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func TestStatus(t *testing.T) {
	q := newQueue(t)
	seen := time.Now().Add(-time.Minute).UTC()
	done := tagJob("app", "done", d1, seen)
	put(t, q, done)
	must(t, q.Done(lease(t, q), replicate.Receipt{Key: contentJob("app", d1).Key, SeenAt: seen, PullableAt: seen, Bytes: 7},
		replicate.Receipt{Key: done.Key, Digest: d1, SeenAt: seen, PullableAt: seen, Bytes: 7}))
	put(t, q, tagJob("app", "dead", d2, seen))
	q.MaxAttempts = 1
	if _, err := q.Fail(lease(t, q), registry.Errorf(registry.Denied, "no")); err != nil {
		t.Fatal(err)
	}
	put(t, q, tagJob("app", "done", d2, time.Now()), tagJob("other", "v1", d1, seen)) // the first moved

	list := func(o replicate.StatusQuery) (out []string) {
		t.Helper()
		for {
			page, next, err := q.Status(t.Context(), o)
			must(t, err)
			if len(page) > max(1, o.Limit) && o.Limit > 0 {
				t.Errorf("%d entries, limit %d", len(page), o.Limit)
			}
			for _, s := range page {
				out = append(out, fmt.Sprintf("%s:%s %s %.10s %v %d %s", s.Repo, s.Tag, s.State, s.Content, !s.PullableAt.IsZero(), s.Bytes, s.Err))
			}
			if o.After = next; next == "" {
				return out
			}
		}
	}
	want := []string{
		fmt.Sprintf("app: done %.10s true 7 ", d1),
		fmt.Sprintf("app:dead dead %.10s false 0 no", d2),
		fmt.Sprintf("app:done pending %.10s false 0 ", d2),
		fmt.Sprintf("other:v1 pending %.10s false 0 ", d1),
	}
	for limit := range 6 {
		if d := cmp.Diff(want, list(replicate.StatusQuery{Limit: limit})); d != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, d)
		}
	}
	for name, test := range map[string]struct {
		o    replicate.StatusQuery
		want []string
	}{
		"state":        {replicate.StatusQuery{State: "dead"}, want[1:2]},
		"repo":         {replicate.StatusQuery{Repo: "app"}, want[:3]},
		"tag":          {replicate.StatusQuery{Repo: "app", Tag: "done"}, want[2:3]},
		"nothing":      {replicate.StatusQuery{Repo: "never"}, nil},
		"done by repo": {replicate.StatusQuery{Repo: "app", State: "done"}, want[:1]},
	} {
		if d := cmp.Diff(test.want, list(test.o)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	for _, bad := range []string{"!", "AAAA", "dGVzdA"} {
		if _, _, err := q.Status(t.Context(), replicate.StatusQuery{After: bad}); registry.ClassOf(err) != registry.Invalid {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	if k, err := replicate.ParseID(done.ID()); err != nil || k != done.Key {
		t.Errorf("id: %v, %v", k, err)
	}
}

// A tag's receipt follows the tag; of what was found, the first receipt stays.
func TestTagReceipts(t *testing.T) {
	q := newQueue(t)
	key := tagJob("app", "v1", "", time.Time{}).Key
	at := time.Now().UTC()
	for _, r := range []replicate.Receipt{
		{Key: key, Digest: d1, PullableAt: at, Bytes: 1},
		{Key: key, Digest: d1, PullableAt: at.Add(time.Hour), Found: true},
	} {
		put(t, q, tagJob("app", "v1", "", time.Time{}))
		must(t, q.Done(lease(t, q), r))
		if got, _, err := q.Receipt(key); err != nil || !got.PullableAt.Equal(at) || got.Found {
			t.Errorf("receipt %+v, %v", got, err)
		}
	}
	put(t, q, tagJob("app", "v1", "", time.Time{}))
	must(t, q.Done(lease(t, q), replicate.Receipt{Key: key, Digest: d2, PullableAt: at, Found: true}))
	if got, _, err := q.Receipt(key); err != nil || got.Digest != d2 || !got.Found {
		t.Errorf("after the tag moved: %+v, %v", got, err)
	}
}
