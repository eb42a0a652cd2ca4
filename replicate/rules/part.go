package rules

import (
	"slices"
	"strings"
)

// Part is those of the rules that end at one destination. It is immutable and safe for concurrent use.
type Part struct {
	rules   []rule
	all     bool // there are no rules: everything
	renames bool // any rule does
}

// Match reports whether any rule wants the image. tag is "" for an image without one.
func (p *Part) Match(repo, tag string) bool {
	wants := func(r rule) bool { return r.wantsRepo(repo) && r.wantsTag(tag) }
	return p.all || slices.ContainsFunc(p.rules, wants) && p.There(repo) != ""
}

// MatchRepo reports whether any rule wants images of the repository, whatever their tags: what need not be listed.
func (p *Part) MatchRepo(repo string) bool {
	wants := func(r rule) bool { return r.wantsRepo(repo) }
	return p.all || slices.ContainsFunc(p.rules, wants) && p.There(repo) != ""
}

// Renames reports whether any name may differ at the destination.
func (p *Part) Renames() bool { return p.renames }

// Platforms returns which images of an index under tag are wanted: those of all rules that want the tag.
func (p *Part) Platforms(repo, tag string) Platforms {
	var some Platforms
	for _, r := range p.rules {
		if !r.wantsRepo(repo) || !r.wantsTag(tag) {
			continue
		}
		if len(r.platforms) == 0 {
			return nil
		}
		some = append(some, r.platforms...)
	}
	return some
}

// Names returns patterns, in which * is any run of characters, that cover every repository name that the rules write at the
// destination. They may cover more: a policy can be no narrower than they are.
func (p *Part) Names() []string {
	if p.all {
		return []string{"*"}
	}
	var all []string
	for _, r := range p.rules {
		in := r.in
		if len(in) == 0 {
			in = patterns{{}}
		}
		for _, from := range in {
			stem, one := strings.CutSuffix(from.stem, end)
			stems := []string{stem}
			switch rest, renamed := strings.CutPrefix(stem, r.rename.From); {
			case renamed:
				stems = []string{r.rename.To + rest}
			case !one && strings.HasPrefix(r.rename.From, stem): // some names are renamed
				stems = append(stems, r.rename.To)
			}
			for _, s := range stems {
				if !one {
					s += "*"
				}
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	if all = slices.Compact(all); slices.Contains(all, "*") {
		return []string{"*"}
	}
	return all
}
