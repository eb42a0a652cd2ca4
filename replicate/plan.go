package replicate

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Action is what a sweep makes of a difference.
type Action uint8

const (
	AddContent Action = iota // an image without a tag is missing
	AddTag                   // a tag is missing, with or without its image
	MoveTag                  // the destination's tag names another image
	KeepTag                  // the same, but there it is immutable: a conflict, which nobody here can resolve
	Expired                  // the image was there before: the destination's own lifecycle removed it. Only force brings it back
)

var actions = [...]string{"add content", "add tag", "move tag", "conflict", "expired"}

// label is what metrics call it.
func (a Action) label() string { return strings.ReplaceAll(a.String(), " ", "_") }

func (a Action) String() string {
	return actions[a]
}

// Copies reports whether there is a job for it.
func (a Action) Copies() bool { return a != KeepTag && a != Expired }

// backlog is the age from which an image that is missing is no lost event but history.
const backlog = 24 * time.Hour

// Difference is one image or tag that source and destination do not agree about.
type Difference struct {
	Key
	Action   Action
	Want     digest.Digest // at the source
	Have     digest.Digest // what the destination's tag names; "" when there is none
	PushedAt time.Time     // zero when the source does not say
	Bytes    int64         // of the image's blobs if it is missing and the source says; else 0
	Follow   bool          // it is about an image that is there, and wanted for that alone
}

// Plan is what a sweep found, oldest push first: a destination whose lifecycle keeps the newest N images would otherwise
// throw away what is newest.
type Plan struct {
	Differences []Difference
	Images      int              // that were compared
	Problems    map[string]error // by repository: could not be compared; the others were
}

func (p *Plan) sort() {
	slices.SortStableFunc(p.Differences, func(a, b Difference) int { return a.PushedAt.Compare(b.PushedAt) })
}

// lane is that of the sweep for what was pushed lately, or nobody knows when, and that of the backfill for history.
func (d *Difference) lane(now time.Time) registry.Lane {
	if !d.PushedAt.IsZero() && now.Sub(d.PushedAt) > backlog {
		return registry.LaneBackfill
	}
	return registry.LaneSweep
}

// Count returns how many differences have one of the actions, and the bytes of their blobs.
func (p *Plan) Count(actions ...Action) (n int, bytes int64) {
	for _, d := range p.Differences {
		if slices.Contains(actions, d.Action) {
			n++
			bytes += d.Bytes
		}
	}
	return n, bytes
}

// Jobs returns the jobs that bring the plan about, in its order, which the queue keeps within a lane: what was pushed in the
// last day goes with the sweep's lane, what is older with the backfill's.
func (p *Plan) Jobs(now time.Time) []Job {
	var jobs []Job
	for _, d := range p.Differences {
		if !d.Action.Copies() {
			continue
		}
		j := Job{Key: d.Key, Lane: d.lane(now), SeenAt: d.PushedAt, NextAt: d.PushedAt, Bytes: d.Bytes, Follow: d.Follow}
		if d.Tag != "" {
			j.Hint = d.Want
		}
		if d.PushedAt.After(now) { // a clock is wrong
			j.NextAt = now
		}
		jobs = append(jobs, j)
	}
	return jobs
}
