// Package rules decides which repository and tag goes to which destination, under which name. It is pure: text in, answers
// out.
//
// Rules come in two forms that may stand together: ECR's own replicationConfiguration, imported unchanged (ParseECR), and
// the mirror's (New). An image is copied if any rule wants it; its destinations are those of all such rules.
//
// Limitations: ECR's limits on the number of rules, destinations and filters are not enforced.
package rules

import (
	"errors"
	"fmt"
	"slices"
)

// Destination is a registry as rules name it: ECR's by region and account, any other by its host. The zero value is the
// mirror's own destination.
type Destination struct{ Region, Account, Host string }

func (d Destination) String() string {
	switch {
	case d == (Destination{}):
		return "own"
	case d.Host != "":
		return d.Host
	}
	return d.Account + " in " + d.Region
}

// Rule wants images by name. Patterns match whole names. A glob's `*` is any run of characters but `/`, `**` any run, `?`
// one character but `/`; all else is itself. Between slashes, as in `/v\d+/`, is a regular expression (RE2 syntax).
type Rule struct {
	Repositories []string `yaml:"repositories"` // any of these; default: every repository
	Exclude      []string `yaml:"exclude"`      // but none of these; default: none
	// Tags: any of these; default: every tag, and images without one. `semver:RANGE` are the tags that are semantic versions
	// in the range, such as `semver:^1.2` or `semver:>=1.2 <3 || 4.0.1`; `1.2` or a date is no version.
	Tags        []string `yaml:"tags"`
	ExcludeTags []string `yaml:"excludeTags"` // but none of these; default: none
	// Platforms choose among the images of an index, as linux/amd64 or linux/arm/v7. The index itself then stays at the
	// source, for registries refuse one whose images are missing: the mirror serves it. Images are then found by their tags
	// alone. Default: all platforms.
	Platforms []string `yaml:"platforms"`
	// Destinations are those of the mirror that it goes to, by host or own. Default: own.
	Destinations []string `yaml:"destinations"`
	// Rename replaces the beginning of repository names there. Of several rules that want a repository the first decides.
	// Where two repositories would have one name, the one whose rule comes first has it, and the other is not copied.
	// Default: names are the same.
	Rename *Rename `yaml:"rename"`
}

// Set is a set of rules. nil and the zero value hold no rules of ours, which means everything, to the own destination. A
// Set is immutable and safe for concurrent use.
type Set struct {
	rules    []rule
	explicit bool // the rules are all there is, even if there are none
}

// rule is the common form of both kinds.
type rule struct {
	in, out       patterns // repositories; no in: all
	tags, notTags patterns
	platforms     Platforms
	rename        Rename
	destinations  []Destination
}

func (r rule) wantsRepo(repo string) bool {
	return (len(r.in) == 0 || r.in.match(repo)) && !r.out.match(repo)
}

// wantsTag: without a tag, an image is wanted only if tags do not matter, nor platforms: an index tells them, not the image.
func (r rule) wantsTag(tag string) bool {
	if tag == "" {
		return len(r.tags) == 0 && len(r.platforms) == 0
	}
	return (len(r.tags) == 0 || r.tags.match(tag)) && !r.notTags.match(tag)
}

// New returns the set of rs; no rules mean everything. named are the destinations that rules may name; "own" is the mirror's,
// if it has one. The error joins every problem, each of which starts with the rule's place, as in "rules[1].tags[0]: ...".
func New(rs []Rule, named map[string]Destination) (*Set, error) {
	s := &Set{explicit: len(rs) > 0}
	var problems []error
	for i, r := range rs {
		read := func(field string, texts []string, parse func(string) (pattern, error)) (ps patterns) {
			for j, text := range texts {
				p, err := parse(text)
				if err != nil {
					problems = append(problems, fmt.Errorf("rules[%d].%s[%d]: %w", i, field, j, err))
				}
				ps = append(ps, p)
			}
			return ps
		}
		compiled := rule{
			in:      read("repositories", r.Repositories, repoPattern),
			out:     read("exclude", r.Exclude, repoPattern),
			tags:    read("tags", r.Tags, tagPattern),
			notTags: read("excludeTags", r.ExcludeTags, tagPattern),
		}
		for j, text := range r.Platforms {
			platform, err := parsePlatform(text)
			if err != nil {
				problems = append(problems, fmt.Errorf("rules[%d].platforms[%d]: %w", i, j, err))
			}
			compiled.platforms = append(compiled.platforms, platform)
		}
		for j, name := range r.Destinations {
			d, ok := named[name]
			if !ok {
				problems = append(problems, fmt.Errorf("rules[%d].destinations[%d]: %q is no destination of the mirror", i, j, name))
			}
			compiled.destinations = add(compiled.destinations, []Destination{d})
		}
		if len(r.Destinations) == 0 {
			compiled.destinations = []Destination{{}}
		}
		if r.Rename != nil {
			for _, err := range r.Rename.problems() {
				problems = append(problems, fmt.Errorf("rules[%d].rename.%w", i, err))
			}
			compiled.rename = *r.Rename
		}
		s.rules = append(s.rules, compiled)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return s, nil
}

// Join returns the set of all rules of sets, in their order. A set that means everything makes the result everything.
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

// All returns every destination that a rule names, each once, in the order of the rules.
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

// Destinations returns where the image goes, in the order of All.
func (s *Set) Destinations(repo, tag string) []Destination {
	return slices.DeleteFunc(s.All(), func(d Destination) bool { return !s.At(d).Match(repo, tag) })
}

// At returns the part of the rules that ends at any of the names of one destination: the own one is also named by its zero
// value.
func (s *Set) At(names ...Destination) *Part {
	if s == nil || !s.explicit {
		return &Part{all: true}
	}
	p := &Part{}
	for _, r := range s.rules {
		if slices.ContainsFunc(r.destinations, func(d Destination) bool { return slices.Contains(names, d) }) {
			p.rules = append(p.rules, r)
			p.renames = p.renames || r.rename != (Rename{})
		}
	}
	return p
}

func add(to, more []Destination) []Destination {
	for _, d := range more {
		if !slices.Contains(to, d) {
			to = append(to, d)
		}
	}
	return to
}
