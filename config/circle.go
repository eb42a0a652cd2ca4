package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// step is a flow of one mirror's rules to one of its destinations.
type step struct {
	mirror   int
	from, to rules.Destination // registries
	flow     rules.Flow
}

// circles refuses mirrors through which a repository may come back to where it was: its tags would overwrite newer pushes with
// what they named before, and names that are rewritten would grow without end. A destination may be the source of another
// mirror; only circles are wrong.
func (c *checker) circles(mirrors []Mirror) {
	var steps []step
	for i := range mirrors {
		m := &mirrors[i]
		for _, t := range m.Targets() {
			for _, f := range t.Rules.Flows() {
				steps = append(steps, step{i, m.Source.place(), t.Registry.place(), f})
			}
		}
	}
	done := make([]bool, len(steps)) // no circle goes through it, or it was reported
	var path []int
	var visit func(i int) bool
	visit = func(i int) bool {
		if at := slices.Index(path, i); at >= 0 {
			c.circle(steps, path[at:])
			return true
		}
		if done[i] {
			return false
		}
		path = append(path, i)
		defer func() { path = path[:len(path)-1]; done[i] = true }()
		for j, next := range steps {
			if next.from == steps[i].to && steps[i].flow.Meets(next.flow) && visit(j) {
				return true
			}
		}
		return false
	}
	for i := range steps {
		if visit(i) {
			return // one circle is enough to see
		}
	}
}

func (c *checker) circle(steps []step, path []int) {
	var way []string
	for _, i := range path {
		name, whole := strings.CutSuffix(steps[i].flow.From, "\x00")
		if !whole {
			name += "…"
		}
		way = append(way, fmt.Sprintf("mirrors[%d] takes %s from %v", steps[i].mirror, name, steps[i].from))
	}
	c.problem(fmt.Sprintf("mirrors[%d].replication", steps[path[0]].mirror),
		"images may go in a circle: %s, and so on; let the rules differ in how their repositories begin", strings.Join(way, ", "))
}
