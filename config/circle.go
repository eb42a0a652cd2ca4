package config

import (
	"fmt"
	"slices"
)

// circles refuses to share the events of a mirror whose images may come back to its source: what keeps them from undoing newer
// pushes there is what the process remembers of its own writes, and another replica does not.
func (c *checker) circles(mirrors []Mirror) {
	next := make(map[string][]string) // registry IDs
	for i := range mirrors {
		for _, t := range mirrors[i].Targets() {
			next[mirrors[i].Source.ID()] = append(next[mirrors[i].Source.ID()], t.Registry.ID())
		}
	}
	for i := range mirrors {
		if !mirrors[i].Events.Shared {
			continue
		}
		source := mirrors[i].Source.ID()
		for _, t := range mirrors[i].Targets() {
			if reaches(next, t.Registry.ID(), source, nil) {
				c.problem(fmt.Sprintf("mirrors[%d].events.shared", i), "images may come back from %s to the source; one process alone can end that circle", t.Registry.Host())
			}
		}
	}
}

func reaches(next map[string][]string, from, to string, been []string) bool {
	return from == to || !slices.Contains(been, from) && slices.ContainsFunc(next[from], func(n string) bool {
		return reaches(next, n, to, append(been[:len(been):len(been)], from))
	})
}
