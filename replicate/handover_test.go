package replicate_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// handing takes jobs over; its calls can be made to fail, before or after the job was taken.
type handing struct {
	mu   sync.Mutex
	fail func(call int) (took bool, err error) // nil: nothing fails
	n    int
	took []string
}

func (h *handing) take(_ context.Context, j replicate.Job) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	took, err := true, error(nil)
	if h.fail != nil {
		took, err = h.fail(h.n)
	}
	if took {
		h.took = append(h.took, j.Repo+":"+j.Tag+string(j.Digest))
	}
	return err
}

// A process that may not write to destinations hands its jobs over, each until it was taken; a repetition is all that a failure
// costs, and a queue that is away for a day no job at all.
func TestHandOver(t *testing.T) {
	down := registry.Errorf(registry.Unavailable, "down")
	content := registrytest.Image(1, 10).Desc.Digest
	both := []string{"a:v1", "b:" + content.String()}
	for name, tc := range map[string]struct {
		fail  func(call int) (bool, error)
		after time.Duration
		want  []string
		left  int
	}{
		"taken":                    {nil, time.Second, both, 0},
		"failed":                   {func(n int) (bool, error) { return n > 2, failing(n <= 2, down) }, time.Minute, both, 0},
		"failed after it took":     {func(n int) (bool, error) { return true, failing(n <= 2, down) }, time.Minute, append(both[:2:2], both...), 0},
		"down for twenty hours":    {func(int) (bool, error) { return false, down }, 20 * time.Hour, nil, 2},
		"down for a day":           {func(int) (bool, error) { return false, down }, 36 * time.Hour, nil, 0}, // two dead letters
		"refused for some time":    {func(n int) (bool, error) { return n > 10, failing(n <= 10, errors.New("no")) }, time.Hour, both, 0},
		"what cannot be a message": {func(int) (bool, error) { return false, registry.Errorf(registry.Invalid, "no") }, time.Minute, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(t)
				h := &handing{fail: tc.fail}
				w := replicate.NewWorkers(replicate.Options{Queue: q, Mirrors: map[string]replicate.Mirror{"m": {HandOver: h.take}},
					Begin: func(ctx context.Context, _ replicate.Job) (context.Context, func(string, error)) {
						return ctx, func(result string, err error) {
							if (result == "handed_over") != (err == nil) {
								t.Errorf("an attempt ended %q: %v", result, err)
							}
						}
					}})
				ctx, cancel := context.WithTimeout(t.Context(), tc.after)
				defer cancel()
				put(t, q, tagJob("a", "v1", content, time.Now()))
				put(t, q, contentJob("b", content))
				must(t, w.Run(ctx))
				slices.Sort(h.took)
				if d := cmp.Diff(slices.Sorted(slices.Values(tc.want)), h.took); d != "" {
					t.Errorf("handed over (-want +got):\n%s", d)
				}
				c := q.Pending()
				if c.Waiting() != tc.left || tc.want == nil && c.Waiting()+c.Dead != 2 || tc.want != nil && c.Dead != 0 {
					t.Errorf("%d wait, %d were given up", c.Waiting(), c.Dead)
				}
				for r, err := range q.Receipts(t.Context()) { // whoever does the job knows what became of it
					t.Errorf("receipt %v, %v", r, err)
				}
			})
		})
	}
}

func failing(yes bool, err error) error {
	if yes {
		return err
	}
	return nil
}
