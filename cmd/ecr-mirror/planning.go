package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// planLine is one line of a plan; it has one of these.
type planLine struct {
	Difference  *difference        `json:"difference,omitempty"`  // an image or tag that differs
	Setting     *settingDifference `json:"setting,omitempty"`     // a repository's setting that differs
	Destination *planSummary       `json:"destination,omitempty"` // the sum of a destination, after its differences
	End         *planEnd           `json:"end,omitempty"`         // of the plan: its last line
	Sync        *progress          `json:"sync,omitempty"`        // the last line of sync: how far the jobs came
}

type difference struct {
	Mirror      string        `json:"mirror"`            // its first name
	Destination string        `json:"destination"`       // "destination" for the mirror's own, else a host
	Action      string        `json:"action"`            // add, add tag, move tag, conflict, expired, delete or keep: WHY
	Repository  string        `json:"repository"`        // at the source
	Tag         string        `json:"tag,omitempty"`     // none: an image by its digest
	Digest      digest.Digest `json:"digest"`            // at the source
	Have        digest.Digest `json:"have,omitempty"`    // what the destination's tag names
	PushedAt    time.Time     `json:"pushedAt,omitzero"` // to the source
	DueAt       time.Time     `json:"dueAt,omitzero"`    // of a deletion
	Bytes       int64         `json:"bytes,omitempty"`   // that the source says the image has
}

type planSummary struct {
	Mirror      string            `json:"mirror"`
	Destination string            `json:"destination"`
	Images      int               `json:"images"`             // compared
	Actions     map[string]int    `json:"actions"`            // how many differences of each
	Jobs        int               `json:"jobs"`               // that sync would do
	Bytes       int64             `json:"bytes"`              // that the jobs would send, where the source says
	Problems    map[string]string `json:"problems,omitempty"` // by repository: could not be compared
	// By repository: settings could not be compared, or not be set.
	SettingsProblems map[string]string `json:"settingsProblems,omitempty"`
}

type planEnd struct {
	Error string `json:"error,omitempty"` // else all destinations were compared
	Jobs  int    `json:"jobs"`            // of all destinations
}

// planner compares whole registries, one destination after another.
type planner struct {
	queue    *replicate.Queue
	sweeps   []*replicate.Sweep
	reapers  []*replicate.Reaper
	settings []*settling
	budgets  map[string]*replicate.Budget // by mirror; nil: none
	converge bool                         // set settings, where the configuration says so
	refusal  error                        // why nothing is compared here
}

// errFront is the refusal of a process that may write nowhere.
func errFront() error {
	return registry.Errorf(registry.Invalid, "a front compares and replicates nothing: ask a worker, or run this with a configuration of another role")
}

// plan calls line for every difference and every destination's sum, and returns the jobs that remove the differences. A sweep
// whose source cannot be listed ends it.
func (p *planner) plan(ctx context.Context, force bool, line func(planLine) error) (jobs []replicate.Job, bytes map[replicate.Key]int64, err error) {
	if p.refusal != nil {
		return nil, nil, p.refusal
	}
	bytes = make(map[replicate.Key]int64)
	for _, sw := range p.sweeps {
		s := *sw
		s.Force = force
		found, err := s.Plan(registry.WithLane(ctx, registry.LaneSweep), time.Time{}, nil)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.Mirror, err)
		}
		sum := planSummary{Mirror: s.Mirror, Destination: s.Destination, Images: found.Images, Actions: make(map[string]int)}
		for _, d := range found.Differences {
			sum.Actions[d.Action.String()]++
			if err := line(planLine{Difference: &difference{d.Mirror, d.Destination, d.Action.String(), d.Repo, d.Tag, d.Want, d.Have, d.PushedAt, time.Time{}, d.Bytes}}); err != nil {
				return nil, nil, err
			}
			if d.Action.Copies() {
				bytes[d.Key] = d.Bytes
				sum.Bytes += d.Bytes
			}
		}
		for repo, problem := range found.Problems {
			if sum.Problems == nil {
				sum.Problems = make(map[string]string)
			}
			sum.Problems[repo] = problem.Error()
		}
		if err := p.deletions(ctx, &sum, line); err != nil {
			return nil, nil, err
		}
		if err := p.compareSettings(ctx, &sum, line); err != nil {
			return nil, nil, err
		}
		todo := found.Jobs(time.Now())
		sum.Jobs = len(todo)
		jobs = append(jobs, todo...)
		if err := line(planLine{Destination: &sum}); err != nil {
			return nil, nil, err
		}
	}
	return jobs, bytes, nil
}

// deletions calls line for what was deleted at the source and waits to be deleted at the destination, or not.
func (p *planner) deletions(ctx context.Context, sum *planSummary, line func(planLine) error) error {
	for _, r := range p.reapers {
		if mirror, destination := r.Place(); mirror != sum.Mirror || destination != sum.Destination {
			continue
		}
		waiting, err := r.Plan(ctx)
		if err != nil {
			return fmt.Errorf("%s: deletions: %w", sum.Mirror, err)
		}
		for _, d := range waiting {
			action := d.Result
			if action != "delete" {
				action = "keep: " + strings.ReplaceAll(action, "_", " ")
			}
			sum.Actions[action]++
			err := line(planLine{Difference: &difference{Mirror: d.Mirror, Destination: d.Destination, Action: action, Repository: d.Repo, Digest: d.Digest, DueAt: d.Due}})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// sync plans, sets settings as it finds them to differ, and writes the jobs down. The workers do them; the run follows them.
func (p *planner) sync(ctx context.Context, force bool, line func(planLine) error) (*syncRun, error) {
	converging := *p
	converging.converge = true
	jobs, bytes, err := converging.plan(ctx, force, line)
	if err != nil {
		return nil, err
	}
	r := &syncRun{queue: p.queue, budgets: p.budgets}
	for _, j := range jobs {
		r.waiting = append(r.waiting, syncJob{j.Key, bytes[j.Key]})
		r.sum.Bytes += bytes[j.Key]
	}
	r.sum.Jobs = len(jobs)
	return r, p.queue.PutAll(ctx, jobs)
}

// syncRun follows the jobs of a plan. Safe for concurrent use.
type syncRun struct {
	queue   *replicate.Queue
	budgets map[string]*replicate.Budget

	mu      sync.Mutex
	waiting []syncJob
	sum     progress
}

type syncJob struct {
	key   replicate.Key
	bytes int64
}

// progress is how far a sync is. Failed jobs wait for an operator: dead letters and conflicts.
type progress struct {
	Jobs      int   `json:"jobs"`
	Done      int   `json:"done"`
	Failed    int   `json:"failed"`    // for an operator: see dead-letters
	Waiting   int   `json:"waiting"`   // for tomorrow's byte budget
	Bytes     int64 `json:"bytes"`     // of all jobs, where the source says
	BytesDone int64 `json:"bytesDone"` // of those that are done
}

func (p progress) ended() bool { return p.Done+p.Failed+p.Waiting == p.Jobs }

// progress looks where the jobs are. A job that an operator retries is done when it leaves the queue.
func (r *syncRun) progress() progress {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Failed, r.sum.Waiting = 0, 0
	r.waiting = slices.DeleteFunc(r.waiting, func(j syncJob) bool {
		job, ok := r.queue.Job(j.key)
		switch {
		case !ok:
			r.sum.Done++
			r.sum.BytesDone += j.bytes
		case job.State == replicate.Dead || job.State == replicate.Conflict:
			r.sum.Failed++
		case job.State == replicate.Pending:
			if _, spent := r.budgets[j.key.Mirror].Spent(job.Lane); spent {
				r.sum.Waiting++
			}
		}
		return !ok
	})
	return r.sum
}
