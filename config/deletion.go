package config

import (
	"fmt"
	"slices"
	"time"
)

// Deletion is what it takes to delete an image at a destination, beside a confirmation by the source and a receipt that this
// very mirror brought the image.
type Deletion struct {
	Grace  time.Duration `yaml:"grace"`  // from hearing of it to deleting. Default: 24h
	PerRun int           `yaml:"perRun"` // most deletions per destination and run. Default: 100
	// Interval is the time between two runs, give or take a twentieth; the first comes after it, too. At least 1s. Default: 1h.
	Interval time.Duration `yaml:"interval"`
	// Expired also deletes what a lifecycle policy at the source may have removed: what no CloudTrail BatchDeleteImage told
	// of, from a repository that has a policy. Default: false.
	Expired bool `yaml:"expired"`
}

// deletion checks what comes of replication.deletes: propagate.
func (c *checker) deletion(path string, m *Mirror) {
	r := &m.Replication
	if r.Deletes != "propagate" {
		if c.given(path + ".deletion") {
			c.problem(path+".deletion", "deletes is not propagate")
		}
		return
	}
	if m.Events.SQS == "" && m.Events.Webhook == nil {
		c.problem(path+".deletes", "propagate: it is events that tell of deletions, and there are none")
	}
	if m.Events.Shared {
		c.problem(path+".deletes", "propagate: what this mirror brought is known to the replica that brought it, so not with events.shared")
	}
	if r.Deletion.Interval < time.Second {
		c.problem(path+".deletion.interval", "%v: want at least 1s", r.Deletion.Interval)
	}
	if r.Deletion.PerRun < 1 {
		c.problem(path+".deletion.perRun", "%d: want at least 1", r.Deletion.PerRun)
	}
}

// soleWriters has no mirror delete where another one writes: its images may be the other's.
func (c *checker) soleWriters(mirrors []Mirror) {
	for i := range mirrors {
		if mirrors[i].Replication.Deletes != "propagate" {
			continue
		}
		for _, t := range mirrors[i].Targets() {
			for j := range mirrors {
				if i != j && slices.ContainsFunc(mirrors[j].Targets(), func(o Target) bool { return o.Registry.place() == t.Registry.place() }) {
					c.problem(fmt.Sprintf("mirrors[%d].replication.deletes", i), "propagate: mirrors[%d] writes to %s, too", j, t.Registry.Host())
				}
			}
		}
	}
}
