package replicate_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// After the events d1, d2 and d1 once more, the destination's tag is d2, for that is what the source says.
func TestTagFollowsSource(t *testing.T) {
	p := newPlaces()
	one, two := registrytest.Image(1, 10), registrytest.Image(2, 10)
	var c replicate.Copier
	for _, n := range []registrytest.Node{one, two} {
		registrytest.Push(t, p.src, "app", "v1", n)
		_, err := c.Tag(t.Context(), p.image("app"), "v1")
		must(t, err)
	}
	res, err := c.Tag(t.Context(), p.image("app"), "v1") // d1's event, retried
	if err != nil || !res.Found || res.Digest != two.Desc.Digest {
		t.Errorf("retried: %+v %v", res, err)
	}
	names(t, p.dst, "app", "v1", two)
}

// A tag that moves while its image is copied is not written with the old digest; one that moves while it is written is
// written again.
func TestTagMovesMeanwhile(t *testing.T) {
	one, two := registrytest.Image(1, 10), registrytest.Image(2, 10)
	for op, writes := range map[string]int{"put-blob": 1, "put-manifest": 2} {
		t.Run(op, func(t *testing.T) {
			p := newPlaces()
			registrytest.Push(t, p.src, "app", "v1", one)
			p.to.Before = func(c registrytest.Call) error {
				if c.Op == op && c.N == 1 {
					registrytest.Push(t, p.src, "app", "v1", two)
				}
				return nil
			}
			var c replicate.Copier
			res, err := c.Tag(t.Context(), p.image("app"), "v1")
			must(t, err)
			if res.Digest != two.Desc.Digest || p.to.Count("put-manifest") != writes {
				t.Errorf("%+v after %d writes, want %d", res, p.to.Count("put-manifest"), writes)
			}
			names(t, p.dst, "app", "v1", two)
		})
	}
}

func TestTagThatNeverRests(t *testing.T) {
	p := newPlaces()
	seed := uint64(0)
	push := func() { seed++; registrytest.Push(t, p.src, "app", "v1", registrytest.Image(seed, 10)) }
	push()
	p.to.After = func(c registrytest.Call) error {
		if c.Op == "put-manifest" {
			push()
		}
		return nil
	}
	var c replicate.Copier
	if _, err := c.Tag(t.Context(), p.image("app"), "v1"); !errors.Is(err, registry.Unavailable) || p.to.Count("put-manifest") != 5 {
		t.Errorf("after %d writes: %v", p.to.Count("put-manifest"), err)
	}
}

// Whatever pushes, late and repeated events, faults, restarts and attempts do to each other: once nothing is left to do,
// every tag at the destination names what it names at the source, with all that is below it.
func TestTagProperty(t *testing.T) {
	images := make([]registrytest.Node, 4)
	for i := range images {
		images[i] = registrytest.Image(uint64(i), 10)
	}
	images[3] = registrytest.Index(images[0], images[3])
	dir, files := t.TempDir(), 0
	rapid.Check(t, func(rt *rapid.T) {
		files++
		path := filepath.Join(dir, fmt.Sprint(files))
		q := openQueue(t, path)
		q.MinDelay, q.MaxDelay = 1, 1
		p := newPlaces()
		current := make(map[string]registrytest.Node)
		tags := rapid.SampledFrom([]string{"v1", "v2"})
		var owed, sent []replicate.Job // events that are still to come, and that came
		push := func() {
			tag, n := tags.Draw(rt, "tag"), images[rapid.IntRange(0, 3).Draw(rt, "image")]
			registrytest.Push(t, p.src, "app", tag, n)
			current[tag] = n
			owed = append(owed, tagJob("app", tag, n.Desc.Digest, time.Now()))
		}
		deliver := func() {
			if len(owed) > 0 {
				i := rapid.IntRange(0, len(owed)-1).Draw(rt, "event")
				put(t, q, owed[i])
				sent = append(sent, owed[i])
				owed = append(owed[:i], owed[i+1:]...)
			} else if len(sent) > 0 {
				put(t, q, sent[rapid.IntRange(0, len(sent)-1).Draw(rt, "repeated event")])
			}
		}
		trouble := true
		meddle := func(registrytest.Call) error {
			if !trouble {
				return nil
			}
			switch rapid.IntRange(0, 19).Draw(rt, "meanwhile") {
			case 0:
				push()
			case 1:
				deliver()
			case 2:
				return registry.Errorf(registry.Unavailable, "fault")
			}
			return nil
		}
		p.from.Before, p.from.After, p.to.Before, p.to.After = meddle, meddle, meddle, meddle
		c := &replicate.Copier{Parallel: 1}
		attempt := func() {
			j := lease(t, q)
			if _, err := c.Tag(t.Context(), p.image("app"), j.Tag); err != nil {
				_, err = q.Fail(j, err)
				must(t, err)
			} else {
				must(t, q.Done(j))
			}
		}
		for range rapid.IntRange(1, 20).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0:
				push()
			case 1, 2:
				deliver()
			case 3:
				if q.Pending().Waiting() > 0 {
					attempt()
				}
			case 4:
				must(t, q.Close())
				q = openQueue(t, path)
				q.MinDelay, q.MaxDelay = 1, 1
			}
		}
		trouble = false
		for len(owed) > 0 {
			deliver()
		}
		for q.Pending().Waiting() > 0 {
			attempt()
		}
		for tag, n := range current {
			names(t, p.dst, "app", tag, n)
			has(t, p.dst, "app", n)
		}
		if n := q.Pending(); n.Dead+n.Conflict != 0 {
			rt.Fatalf("given up: %+v", n)
		}
		must(t, q.Close())
		if t.Failed() {
			rt.FailNow()
		}
	})
}
