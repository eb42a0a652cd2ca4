package replicate_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// at returns j for another destination.
func at(destination string, j replicate.Job) replicate.Job {
	j.Destination = destination
	return j
}

func TestImages(t *testing.T) {
	q := newQueue(t)
	q.MaxAttempts = 1
	now := time.Now().UTC()
	finish := func(j replicate.Job) {
		put(t, q, j)
		must(t, q.Done(lease(t, q), replicate.Receipt{Key: contentJob("x", d1).Key, PullableAt: now}, replicate.Receipt{Key: j.Key, Digest: d1, PullableAt: now}))
	}
	finish(tagJob("app", "a", d1, now))
	finish(at("e", tagJob("app", "a", d1, now)))
	finish(at("e", tagJob("app", "b", d1, now)))
	finish(tagJob("lib", "a", d1, now))
	finish(tagJob("app-2", "a", d1, now)) // '-' sorts before '/', and after the end
	finish(tagJob("app/sub", "a", d1, now))
	put(t, q, at("e", tagJob("lib", "dead", d2, now)))
	if _, err := q.Fail(lease(t, q), registry.Errorf(registry.Denied, "no")); err != nil {
		t.Fatal(err)
	}
	lent := at("e", tagJob("app/sub", "a", d2, now))
	lent.Lent = true
	put(t, q, tagJob("app", "b", d2, now), lent)
	elsewhere := tagJob("app", "a", d1, now)
	elsewhere.Mirror = "m2"
	put(t, q, elsewhere)

	list := func(o replicate.ImageQuery) (out []string) {
		t.Helper()
		o.Mirror, o.Destinations = "m", []string{"d", "e"}
		for {
			rows, next, err := q.Images(t.Context(), o)
			must(t, err)
			if o.Limit > 0 && len(rows) > o.Limit {
				t.Errorf("%d images, limit %d", len(rows), o.Limit)
			}
			for _, r := range rows {
				line := r.Repo + ":" + r.Name
				for _, s := range r.At {
					line += " " + s.State
				}
				out = append(out, line)
			}
			if o.After = next; next == "" {
				return out
			}
		}
	}
	want := []string{"app:a done done", "app:b pending done", "app-2:a done ", "app/sub:a done pending", "lib:a done ", "lib:dead  dead"}
	for limit := range 8 {
		if d := cmp.Diff(want, list(replicate.ImageQuery{Limit: limit})); d != "" {
			t.Errorf("limit %d (-want +got):\n%s", limit, d)
		}
	}
	for name, tc := range map[string]struct {
		o    replicate.ImageQuery
		want []string
	}{
		"repository":       {replicate.ImageQuery{Repo: "app", Limit: 1}, want[:4]},
		"its end":          {replicate.ImageQuery{Repo: "app/"}, want[3:4]},
		"tag":              {replicate.ImageQuery{Name: "a"}, []string{want[0], want[2], want[3], want[4]}},
		"pending":          {replicate.ImageQuery{State: "pending", Limit: 1}, []string{want[1], want[3]}},
		"dead":             {replicate.ImageQuery{State: "dead"}, want[5:]},
		"done":             {replicate.ImageQuery{State: "done", Repo: "app", Limit: 1}, want[:4]},
		"none":             {replicate.ImageQuery{Repo: "zoo"}, nil},
		"all at once":      {replicate.ImageQuery{Repo: "lib", Name: "d", State: "dead"}, want[5:]},
		"images by digest": {replicate.ImageQuery{Digests: true}, []string{"x:" + d1.String() + " done "}},
	} {
		if d := cmp.Diff(tc.want, list(tc.o)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if _, _, err := q.Images(t.Context(), replicate.ImageQuery{After: "!"}); registry.ClassOf(err) != registry.Invalid {
		t.Errorf("a cursor that is none: %v", err)
	}
}

// What a page looks at does not grow with the queue.
func TestImagesAreBounded(t *testing.T) {
	q := newQueue(t)
	var jobs []replicate.Job
	for i := range 12_000 {
		jobs = append(jobs, tagJob(fmt.Sprintf("team-%d/app-%d", i%50, i/50%10), fmt.Sprintf("v%d", i), d1, time.Now()))
	}
	must(t, q.PutAll(t.Context(), jobs))
	for name, tc := range map[string]struct {
		o            replicate.ImageQuery
		images, most int
	}{
		"a page":                   {replicate.ImageQuery{Limit: 50}, 50, 50},
		"of a repository":          {replicate.ImageQuery{Limit: 50, Repo: "team-7/"}, 50, 50},
		"of what nothing is":       {replicate.ImageQuery{State: "conflict"}, 0, 2000},
		"of a name that is nobody": {replicate.ImageQuery{Name: "w"}, 0, 10_000},
	} {
		tc.o.Mirror, tc.o.Destinations = "m", []string{"d"}
		images, keys, err := q.LookedAt(t.Context(), tc.o)
		if must(t, err); images != tc.images || keys > tc.most {
			t.Errorf("%s: %d images after a look at %d keys, want %d after %d", name, images, keys, tc.images, tc.most)
		}
	}
}

// Of a copy under way it is known how much of it is sent, what the destination has not counted; a mount is nothing to send.
func TestActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		image := registrytest.Image(1, 5000)
		var want int64
		for _, b := range image.Blobs[1:] {
			want += int64(len(b.Body))
		}
		registrytest.Push(t, r.src, "app", "v1", image)
		must(t, r.dst.CreateRepository(t.Context(), "app"))
		must(t, r.dst.PutBlob(t.Context(), "app", image.Blobs[0].Desc, strings.NewReader(string(image.Blobs[0].Body))))
		let := make(chan struct{})
		r.to.Before = func(c registrytest.Call) error {
			if c.Op == "put-manifest" {
				<-let
			}
			return nil
		}
		began := time.Now()
		put(t, r.q, tagJob("app", "v1", image.Desc.Digest, began))
		synctest.Wait()
		time.Sleep(time.Minute)
		doing := r.w.Active()
		if len(doing) != 1 || doing[0].Tag != "v1" || !doing[0].Since.Equal(began) || doing[0].Total != want || doing[0].Sent != want || want == 0 {
			t.Errorf("in work: %+v, want %d bytes", doing, want)
		}
		close(let)
		r.settle(time.Minute)
		if doing := r.w.Active(); len(doing) != 0 {
			t.Errorf("still in work: %+v", doing)
		}
	})
}
