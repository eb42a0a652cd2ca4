package rules

import "strings"

// Flow is how a rule moves names: repositories that begin with From become ones that begin with To. A stem that ends with a
// zero byte is a whole name. What rules exclude is not considered.
type Flow struct{ From, To string }

// Flows returns all of a part.
func (p *Part) Flows() (flows []Flow) {
	if p.all {
		return []Flow{{}}
	}
	for _, r := range p.rules {
		stems := []string{""}
		if len(r.in) > 0 {
			stems = stems[:0]
			for _, in := range r.in {
				stems = append(stems, in.stem)
			}
		}
		for _, stem := range stems {
			if !strings.HasPrefix(stem, r.rename.From) {
				flows = append(flows, Flow{stem, stem}) // of names that do not begin with what the rule replaces
			}
			if strings.HasPrefix(stem, r.rename.From) {
				flows = append(flows, Flow{stem, r.rename.there(stem)})
			} else if strings.HasPrefix(r.rename.From, stem) {
				flows = append(flows, Flow{r.rename.From, r.rename.To})
			}
		}
	}
	return flows
}

// Meets reports whether a repository that f has brought may be one that g takes.
func (f Flow) Meets(g Flow) bool {
	return strings.HasPrefix(f.To, g.From) || strings.HasPrefix(g.From, f.To)
}
