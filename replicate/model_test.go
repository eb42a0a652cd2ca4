package replicate_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// Any sequence of calls leaves the queue as a simple model of it says, in memory and after a restart.
func TestQueueModel(t *testing.T) {
	dir := t.TempDir()
	files := 0
	rapid.Check(t, func(rt *rapid.T) {
		files++
		path := filepath.Join(dir, fmt.Sprint(files))
		q := openQueue(t, path)
		q.MinDelay, q.MaxDelay, q.MaxAttempts = 1, 1, 2
		type model struct {
			state    replicate.State
			again    bool
			lent     bool
			attempts int
		}
		jobs := make(map[string]*model)
		leased := make(map[string]replicate.Job)
		tags := rapid.SampledFrom([]string{"a", "b", "c"})
		pick := func() (string, bool) {
			tag := tags.Draw(rt, "tag")
			_, ok := leased[tag]
			return tag, ok
		}
		check := func() {
			got, want := make(map[string]replicate.State), make(map[string]replicate.State)
			for j, err := range q.Jobs(t.Context()) {
				must(t, err)
				got[j.Tag] = j.State
			}
			for tag, m := range jobs {
				want[tag] = m.state
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Fatalf("states (-want +got):\n%s", diff)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"put": func(rt *rapid.T) {
				tag := tags.Draw(rt, "tag")
				j := tagJob("app", tag, "", time.Time{})
				j.Lent = rapid.Bool().Draw(rt, "lent")
				put(t, q, j)
				m := jobs[tag]
				if m != nil {
					m.lent = m.lent && j.Lent
				}
				switch {
				case m == nil:
					jobs[tag] = &model{lent: j.Lent}
				case m.state == replicate.Leased:
					m.again = true
				case m.state == replicate.Dead:
					m.state, m.attempts = replicate.Pending, 1
				}
			},
			"lease": func(rt *rapid.T) {
				for _, m := range jobs {
					if m.state == replicate.Pending {
						j := lease(t, q)
						jobs[j.Tag].state, jobs[j.Tag].again = replicate.Leased, false
						leased[j.Tag] = j
						return
					}
				}
			},
			"done": func(rt *rapid.T) {
				if tag, ok := pick(); ok {
					must(t, q.Done(leased[tag]))
					delete(leased, tag)
					if jobs[tag].again {
						jobs[tag].state = replicate.Pending
					} else {
						delete(jobs, tag)
					}
				}
			},
			"fail": func(rt *rapid.T) {
				if tag, ok := pick(); ok {
					_, err := q.Fail(leased[tag], registry.Denied)
					must(t, err)
					delete(leased, tag)
					m := jobs[tag]
					m.attempts++
					if m.state = replicate.Pending; m.attempts >= 2 && !m.again {
						m.state, m.lent = replicate.Dead, false
					}
				}
			},
			"release": func(rt *rapid.T) {
				if tag, ok := pick(); ok {
					q.Release(leased[tag])
					delete(leased, tag)
					jobs[tag].state = replicate.Pending
				}
			},
			"restart": func(rt *rapid.T) {
				must(t, q.Close())
				q = openQueue(t, path)
				q.MinDelay, q.MaxDelay, q.MaxAttempts = 1, 1, 2
				clear(leased)
				for tag, m := range jobs {
					if m.lent {
						delete(jobs, tag)
					} else if m.state == replicate.Leased {
						m.state = replicate.Pending
					}
				}
			},
		})
		must(t, q.Close())
	})
}

// Many callers at once: no job is lost, none is done by two at a time, and they share fsyncs.
func TestQueueConcurrent(t *testing.T) {
	q := newQueue(t)
	const putters, each = 8, 25
	var wg sync.WaitGroup
	for p := range putters {
		wg.Go(func() {
			for i := range each {
				put(t, q, tagJob("app", fmt.Sprintf("%d-%d", p, i), "", time.Time{}))
			}
		})
	}
	var mu sync.Mutex
	busy, done := make(map[string]bool), make(map[string]int)
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		wg.Go(func() {
			for {
				j, err := q.Lease(ctx)
				if err != nil {
					return
				}
				mu.Lock()
				if busy[j.Tag] {
					t.Errorf("%s is leased twice", j.Tag)
				}
				busy[j.Tag] = true
				mu.Unlock()
				mu.Lock()
				busy[j.Tag] = false
				done[j.Tag]++
				last := len(done) == putters*each
				mu.Unlock()
				if err := q.Done(j); err != nil {
					t.Error(err)
				}
				if last {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if n := q.Pending().Waiting(); n != 0 || len(done) != putters*each {
		t.Errorf("%d done, %d left", len(done), n)
	}
}
