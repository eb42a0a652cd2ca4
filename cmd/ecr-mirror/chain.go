package main

import (
	"slices"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// chain is all ways that images take between registries in this process.
type chain []leg

type leg struct {
	from, to string // config.Registry.ID
	rules    *rules.Part
}

func chainOf(cfg *config.Config) (c chain) {
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		for _, t := range m.Targets() {
			c = append(c, leg{m.Source.ID(), t.Registry.ID(), t.Rules})
		}
	}
	return c
}

// trail returns what keeps images from going in circles over one of the legs; nil if that goes on from none and none from it.
func (c chain) trail(one leg) func(*replicate.Queue) *replicate.Trail {
	if !slices.ContainsFunc(c, func(l leg) bool { return l.to == one.from || l.from == one.to }) {
		return func(*replicate.Queue) *replicate.Trail { return nil }
	}
	mutual := func(repo, tag string) bool {
		there := one.rules.There(repo)
		return slices.ContainsFunc(c, func(l leg) bool {
			return l.from == one.to && l.to == one.from && l.rules.Match(there, tag) && l.rules.There(there) == repo
		})
	}
	return func(q *replicate.Queue) *replicate.Trail {
		return &replicate.Trail{Queue: q, Source: one.from, Destination: one.to, Mutual: mutual}
	}
}
