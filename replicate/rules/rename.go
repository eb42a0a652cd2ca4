package rules

import (
	"errors"
	"fmt"
	"strings"
)

// Rename replaces the beginning of repository names at the destination. Both ends are whole path components: empty, or
// ending with a slash.
type Rename struct {
	From string `yaml:"from"` // what a name begins with; names that do not are kept. Default: empty, every name
	To   string `yaml:"to"`   // what it begins with at the destination. Default: empty
}

// problems returns what is wrong, each with its field.
func (r *Rename) problems() (found []error) {
	if *r == (Rename{}) {
		found = append(found, errors.New("from: neither from nor to"))
	}
	for _, f := range []struct{ key, text string }{{"from", r.From}, {"to", r.To}} {
		if f.text != "" && (!strings.HasSuffix(f.text, "/") || strings.HasPrefix(f.text, "/") || !prefix.MatchString(f.text)) {
			found = append(found, fmt.Errorf("%s: %q is not the beginning of a repository name that ends with a slash", f.key, f.text))
		}
	}
	return found
}

func (r Rename) there(repo string) string {
	if rest, ok := strings.CutPrefix(repo, r.From); ok {
		return r.To + rest
	}
	return repo
}

// There returns what the destination calls a repository of the source: the first rule that wants the repository decides; one
// that no rule wants keeps its name. It is "" if another repository has that name there: names never meet, for Here is the
// inverse, and what has no name there is not wanted there.
func (p *Part) There(repo string) string {
	if name := p.there(repo); p.Here(name) == repo {
		return name
	}
	return ""
}

// Here returns which repository of the source a repository of the destination is: of several that could have its name, the
// one whose rule comes first. It is "" when the name is none's.
func (p *Part) Here(name string) string {
	if !p.renames {
		return name
	}
	for _, r := range p.rules {
		if rest, ok := strings.CutPrefix(name, r.rename.To); ok {
			if repo := r.rename.From + rest; r.wantsRepo(repo) && p.there(repo) == name {
				return repo
			}
		}
		if r.wantsRepo(name) && p.there(name) == name { // without the prefix that the rule replaces
			return name
		}
	}
	if p.there(name) == name {
		return name
	}
	return ""
}

func (p *Part) there(repo string) string {
	if !p.renames {
		return repo
	}
	for _, r := range p.rules {
		if r.wantsRepo(repo) {
			return r.rename.there(repo)
		}
	}
	return repo
}
