package replicate_test

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// scans is a source that notes when each sweep began, and since when it listed each repository.
type scans struct {
	registry.Catalog
	mu     sync.Mutex
	sweeps []scan
}

type scan struct {
	start time.Time
	since map[string]time.Time
}

func (s *scans) Repositories(ctx context.Context) iter.Seq2[string, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeps = append(s.sweeps, scan{time.Now(), make(map[string]time.Time)})
	return s.Catalog.Repositories(ctx)
}

func (s *scans) Images(ctx context.Context, repo string, since time.Time) iter.Seq2[registry.Image, error] {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweeps[len(s.sweeps)-1].since[repo] = since
	return s.Catalog.Images(ctx, repo, since)
}

// The first sweep starts within a tenth of the interval and compares everything; the others start an interval after the last,
// give or take a tenth, and compare what is new, and each repository whole in one of 24.
func TestSweepingTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const repos, turns = 60, 24
		content := mem.New()
		for i := range repos {
			registrytest.Push(t, content, fmt.Sprint("app", i), "v1", registrytest.Image(1, 10))
		}
		src := &scans{Catalog: content}
		sweeping := replicate.NewSweeping(replicate.SweepingOptions{Sweeps: []*replicate.Sweep{
			{Mirror: "m", Destination: "d", Source: src, Target: content, Queue: newQueue(t), Interval: time.Hour}}})
		ctx, stop := context.WithCancel(t.Context())
		begun, ended := time.Now(), make(chan error, 1)
		go func() { ended <- sweeping.Run(ctx) }()
		time.Sleep((2*turns + 1) * 67 * time.Minute)
		stop()
		must(t, <-ended)

		if len(src.sweeps) < 2*turns+1 {
			t.Fatalf("%d sweeps", len(src.sweeps))
		}
		gaps, full, shares := make(map[time.Duration]bool), make(map[string]int), 0
		for i, s := range src.sweeps[:2*turns+1] {
			if len(s.since) != repos {
				t.Fatalf("sweep %d listed %d repositories", i, len(s.since))
			}
			whole := 0
			for repo, since := range s.since {
				switch {
				case since.IsZero():
					whole++
					if i > 0 {
						full[repo]++
					}
				case i == 0 || !since.Equal(src.sweeps[i-1].start.Add(-10*time.Minute)):
					t.Errorf("sweep %d: %s was listed since %v, the last sweep began at %v", i, repo, since, src.sweeps[max(i, 1)-1].start)
				}
			}
			if i == 0 {
				if wait := s.start.Sub(begun); wait > 6*time.Minute || whole != repos {
					t.Errorf("the first sweep began after %v and compared %d repositories whole", wait, whole)
				}
				continue
			}
			gap := s.start.Sub(src.sweeps[i-1].start)
			if gaps[gap] = true; gap < 54*time.Minute || gap > 66*time.Minute {
				t.Errorf("sweep %d began %v after the last", i, gap)
			}
			if whole > 0 {
				shares++
			}
		}
		if len(gaps) < turns {
			t.Errorf("%d different intervals of %d", len(gaps), 2*turns)
		}
		for repo, n := range full {
			if n != 2 {
				t.Errorf("%s was compared whole %d times in %d sweeps", repo, n, 2*turns)
			}
		}
		if len(full) != repos || shares < turns {
			t.Errorf("%d repositories were compared whole, in %d of %d sweeps", len(full), shares, 2*turns)
		}
	})
}
