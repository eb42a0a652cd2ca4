// Package rules decides which repository and tag goes to which destination. It is pure: text in, answers out.
//
// Rules come in two forms that may stand together: ECR's own replicationConfiguration, imported unchanged (ParseECR), and
// the mirror's, with globs (New). An image is copied if any rule wants it; its destinations are those of all such rules.
//
// Limitations: ECR's limits on the number of rules, destinations and filters are not enforced. Images keep all their
// platforms and their repository's name.
package rules

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Destination is a registry as ECR's rules name it. The zero value is the mirror's own destination.
type Destination struct{ Region, Account string }

func (d Destination) String() string {
	if d == (Destination{}) {
		return "own"
	}
	return d.Account + " in " + d.Region
}

// Rule wants images by name. Patterns match the whole name: `*` is any run of characters but `/`, `**` any run, `?` one
// character but `/`; all else is itself. Images go to the mirror's own destination.
type Rule struct {
	Repositories []string `yaml:"repositories"` // any of these; default: every repository
	Exclude      []string `yaml:"exclude"`      // but none of these; default: none
	Tags         []string `yaml:"tags"`         // any of these; default: every tag, and images without one
}

// Set is a set of rules. nil and the zero value hold no rules of ours, which means everything, to the own destination. A
// Set is immutable and safe for concurrent use.
type Set struct {
	rules    []rule
	explicit bool // the rules are all there is, even if there are none
}

// rule is the common form of both kinds.
type rule struct {
	repositories func(repo string) bool
	tags         func(tag string) bool
	destinations []Destination
}

// New returns the set of rs; no rules mean everything. The error joins every problem, each of which starts with the rule's
// place, as in "rules[1].tags[0]: ...".
func New(rs []Rule) (*Set, error) {
	s := &Set{explicit: len(rs) > 0}
	var problems []error
	for i, r := range rs {
		compile := func(field string, patterns []string, valid *regexp.Regexp) func(string) bool {
			var any []*regexp.Regexp
			for j, p := range patterns {
				if !valid.MatchString(p) {
					problems = append(problems, fmt.Errorf("rules[%d].%s[%d]: pattern %q: empty or with a character that no name has", i, field, j, p))
					continue
				}
				any = append(any, glob(p))
			}
			return func(s string) bool {
				return slices.ContainsFunc(any, func(re *regexp.Regexp) bool { return re.MatchString(s) })
			}
		}
		in, out := compile("repositories", r.Repositories, repoPattern), compile("exclude", r.Exclude, repoPattern)
		tags := compile("tags", r.Tags, tagPattern)
		s.rules = append(s.rules, rule{
			repositories: func(repo string) bool { return (len(r.Repositories) == 0 || in(repo)) && !out(repo) },
			tags:         func(tag string) bool { return len(r.Tags) == 0 || tags(tag) },
			destinations: []Destination{{}},
		})
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return s, nil
}

// The characters of repository names and tags (OCI distribution specification, "Pulling manifests"), and wildcards.
var (
	repoPattern = regexp.MustCompile(`^[a-z0-9._/*?-]+$`)
	tagPattern  = regexp.MustCompile(`^[a-zA-Z0-9._*?-]+$`)
)

// glob translates a valid pattern.
func glob(pattern string) *regexp.Regexp {
	r := strings.NewReplacer(`**`, `.*`, `*`, `[^/]*`, `?`, `[^/]`, `.`, `\.`)
	return regexp.MustCompile(`\A(?:` + r.Replace(pattern) + `)\z`)
}

// Join returns the set of all rules of sets. A set that means everything makes the result everything.
func Join(sets ...*Set) *Set {
	all := &Set{explicit: true}
	for _, s := range sets {
		if s == nil || !s.explicit {
			return &Set{}
		}
		all.rules = append(all.rules, s.rules...)
	}
	return all
}

// Match reports whether any rule wants the image. tag is "" for an image without one.
func (s *Set) Match(repo, tag string) bool { return len(s.Destinations(repo, tag)) > 0 }

// Destinations returns where the image goes, each destination once, in the order of the rules.
func (s *Set) Destinations(repo, tag string) []Destination {
	if s == nil || !s.explicit {
		return []Destination{{}}
	}
	var to []Destination
	for _, r := range s.rules {
		if r.repositories(repo) && r.tags(tag) {
			to = add(to, r.destinations)
		}
	}
	return to
}

// At returns the part of the rules that ends at own: the zero Destination or own itself by name.
func (s *Set) At(own Destination) *Set {
	if s == nil || !s.explicit {
		return s
	}
	part := &Set{explicit: true}
	for _, r := range s.rules {
		if slices.Contains(r.destinations, Destination{}) || slices.Contains(r.destinations, own) {
			r.destinations = []Destination{{}}
			part.rules = append(part.rules, r)
		}
	}
	return part
}

// All returns every destination that a rule names, each once: what At(own) leaves out is somebody else's.
func (s *Set) All() []Destination {
	if s == nil || !s.explicit {
		return []Destination{{}}
	}
	var to []Destination
	for _, r := range s.rules {
		to = add(to, r.destinations)
	}
	return to
}

func add(to, more []Destination) []Destination {
	for _, d := range more {
		if !slices.Contains(to, d) {
			to = append(to, d)
		}
	}
	return to
}
