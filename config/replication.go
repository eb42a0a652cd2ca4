package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// Target is a registry that this mirror replicates to.
type Target struct {
	Registry Registry
	Own      bool        // it is the mirror's destination
	Rules    *rules.Part // that end there
}

// Targets returns where the mirror replicates to, its own destination first.
func (m *Mirror) Targets() (all []Target) {
	if m.Destination != nil {
		all = append(all, Target{*m.Destination, true, m.Replication.Set.At(rules.Destination{}, m.Own())})
	}
	if m.Replication.Destinations != "all" {
		return all
	}
	for _, d := range m.Others() {
		r, _ := m.reach(d) // checked when the configuration was read
		all = append(all, Target{r, false, m.Replication.Set.At(d)})
	}
	return all
}

// Others returns the destinations that rules name beside the mirror's own.
func (m *Mirror) Others() []rules.Destination {
	return slices.DeleteFunc(m.Replication.Set.All(), func(d rules.Destination) bool { return d == rules.Destination{} || d == m.Own() })
}

// reach returns how to reach a destination that rules name: as registries say, else as the source's host says where it is
// another account or region of it. ok is false if neither does.
func (m *Mirror) reach(d rules.Destination) (r Registry, ok bool) {
	for _, r := range m.Replication.Registries {
		if r.place() == d {
			return r, true
		}
	}
	at := ecrHost.FindStringSubmatchIndex(m.Source.Host())
	if at == nil || d.Region == "" {
		return Registry{}, false
	}
	host := m.Source.Host() // groups 1 and 2 are account and region
	host = d.Account + host[at[3]:at[4]] + d.Region + host[at[5]:]
	return Registry{Registry: host, Account: d.Account, Region: d.Region}, true
}

// ID names the registry, by whichever of its hosts it is reached.
func (r *Registry) ID() string { return r.place().String() }

// place returns the registry as rules name it.
func (r *Registry) place() rules.Destination {
	if r.IsECR() {
		return rules.Destination{Region: r.Region, Account: r.Account}
	}
	return rules.Destination{Host: r.Host()}
}

func (c *checker) replication(path string, m *Mirror) {
	r := &m.Replication
	c.oneOf(path+".destinations", r.Destinations, []string{"own", "all"})
	c.oneOf(path+".deletes", r.Deletes, []string{"ignore", "propagate"})
	c.deletion(path, m)
	if r.Sweep != 0 && r.Sweep < time.Minute {
		c.problem(path+".sweep", "%v: want 0s (off) or at least 1m", r.Sweep)
	}
	if r.Destinations != "all" && c.given(path) && m.Destination == nil {
		c.problem(path, "there is no destination to replicate to")
	}
	c.fronts(path+".fronts", m)
	ours, err := rules.New(r.Rules, c.registries(path+".registries", m))
	c.joined(path, err)
	sets := []*rules.Set{ours}
	if r.RulesFile != "" {
		if sets = append(sets, c.rulesFile(path+".rulesFile", m)); len(r.Rules) == 0 {
			sets = sets[1:]
		}
	}
	if slices.Contains(sets, nil) { // after a problem
		return
	}
	r.Set = rules.Join(sets...)
	c.settings(path+".settings", m)
	if r.Destinations != "all" {
		return
	}
	if m.Destination == nil && slices.Contains(r.Set.All(), rules.Destination{}) {
		c.problem(path, "without rules, and by a rule without destinations, images go to the mirror's own destination, and it has none")
	}
	for _, d := range m.Others() {
		if _, ok := m.reach(d); !ok {
			c.problem(path, "rules name %v, and the source's host does not tell how to reach it: add it to registries", d)
		}
	}
}

func (c *checker) fronts(path string, m *Mirror) {
	f := m.Replication.Fronts
	if f == nil {
		return
	}
	if c.registry(path, f); f.IsECR() {
		c.problem(path+".registry", "%s is ECR, and no load balancer of mirrors", f.Host())
	}
	if i := slices.IndexFunc(m.Names, func(name string) bool { return m.Destination == nil || name != m.Destination.Host() }); f.NS == "" && i >= 0 {
		f.NS = m.Names[i]
	}
}

var kmsKey = regexp.MustCompile(`^arn:[a-z0-9-]+:kms:[a-z0-9-]+:[0-9]{12}:(?:key|alias)/[A-Za-z0-9/_-]+$`)
var kmsAlias = regexp.MustCompile(`^alias/[A-Za-z0-9/_-]+$`)

func (c *checker) settings(path string, m *Mirror) {
	s := &m.Replication.Settings
	c.oneOf(path+".mode", s.Mode, []string{"", "show", "converge"})
	if s.Mode != "" && m.Source.Registry != "" && !m.Source.IsECR() {
		c.problem(path+".mode", "for ECR only, and the source is not")
	}
	if len(s.KMSKeys) > 0 && s.Mode == "" {
		c.problem(path+".kmsKeys", "belongs to mode: show or converge")
	}
	for _, from := range slices.Sorted(maps.Keys(s.KMSKeys)) {
		if to := s.KMSKeys[from]; !kmsKey.MatchString(from) || !kmsKey.MatchString(to) && !kmsAlias.MatchString(to) {
			c.problem(path+".kmsKeys."+from, "want the ARN of a key at the source, and one at the destination or alias/NAME")
		}
	}
}

// registries checks the further destinations and returns all of the mirror's by the names that rules may use.
func (c *checker) registries(path string, m *Mirror) map[string]rules.Destination {
	named := make(map[string]rules.Destination)
	if m.Destination != nil {
		named["own"], named[m.Destination.Host()] = rules.Destination{}, rules.Destination{}
	}
	places := map[rules.Destination]string{m.Source.place(): "the source", m.Own(): "destination"}
	for i := range m.Replication.Registries {
		at, r := fmt.Sprintf("%s[%d]", path, i), &m.Replication.Registries[i]
		c.registry(at, r)
		d := r.place()
		if first, ok := places[d]; ok && r.Registry != "" {
			c.problem(at+".registry", "%s is already %s", r.Host(), first)
		}
		places[d], named[r.Host()] = at, d
	}
	return named
}

// rulesFile reads the rules that ECR wrote; nil after a problem.
func (c *checker) rulesFile(path string, m *Mirror) *rules.Set {
	c.path(&m.Replication.RulesFile)
	data, err := readFile(m.Replication.RulesFile)
	if err != nil {
		c.problem(path, "%v", err)
		return nil
	}
	imported, account, err := rules.ParseECR(data)
	if err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			c.problem(path, "%s", line)
		}
		return nil
	}
	if account != "" && m.Source.Account != "" && account != m.Source.Account {
		c.problem(path, "is of registry %s, but source is %s", account, m.Source.Account)
	}
	return imported
}
