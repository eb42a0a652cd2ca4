package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// ParseECR reads ECR's replication configuration: what `aws ecr describe-registry` prints, or the replicationConfiguration
// within it, which is what `put-replication-configuration` takes. registryID is the account that the rules replicate from,
// "" if the text does not say.
//
// The semantics are ECR's: a rule without filters takes every repository, else any of its filters may match, each by
// prefix; tags do not matter; no rules replicate nothing. The error joins every problem, each with its path in the text.
// What is not known is an error, for it might be what narrows a rule.
func ParseECR(data []byte) (s *Set, registryID string, err error) {
	p := &ecrParser{}
	s = &Set{explicit: true}
	parseRules := func(path string, raw json.RawMessage) {
		p.list(path, raw, func(path string, raw json.RawMessage) { s.rules = append(s.rules, p.rule(path, raw)) })
	}
	seen := p.object("", data, map[string]field{
		"registryId": func(path string, raw json.RawMessage) { registryID = p.text(path, raw, accountID, "12 digits") },
		"replicationConfiguration": func(path string, raw json.RawMessage) {
			p.object(path, raw, map[string]field{"rules": parseRules}, "rules")
		},
		"rules": parseRules,
	})
	if seen != nil && seen["rules"] == seen["replicationConfiguration"] {
		p.problem("", "want either replicationConfiguration or rules")
	}
	if len(p.problems) > 0 {
		return nil, "", errors.Join(p.problems...)
	}
	return s, registryID, nil
}

var (
	accountID = regexp.MustCompile(`^[0-9]{12}$`)
	region    = regexp.MustCompile(`^[0-9a-z-]{2,25}$`) // ECR API, type Region
	prefix    = regexp.MustCompile(`^[a-z0-9._/-]{1,256}$`)
	matchType = regexp.MustCompile(`^PREFIX_MATCH$`)
)

// ecrParser collects problems while it walks. encoding/json alone would stop at the first, and match keys of any case.
type ecrParser struct{ problems []error }

type field func(path string, raw json.RawMessage)

func (p *ecrParser) rule(path string, raw json.RawMessage) rule {
	var r rule
	p.object(path, raw, map[string]field{
		"destinations": func(path string, raw json.RawMessage) {
			p.list(path, raw, func(path string, raw json.RawMessage) {
				var d Destination
				p.object(path, raw, map[string]field{
					"region":     func(path string, raw json.RawMessage) { d.Region = p.text(path, raw, region, "a region") },
					"registryId": func(path string, raw json.RawMessage) { d.Account = p.text(path, raw, accountID, "12 digits") },
				}, "region", "registryId")
				r.destinations = append(r.destinations, d)
			})
		},
		"repositoryFilters": func(path string, raw json.RawMessage) {
			p.list(path, raw, func(path string, raw json.RawMessage) {
				p.object(path, raw, map[string]field{
					"filter": func(path string, raw json.RawMessage) {
						stem := p.text(path, raw, prefix, "the beginning of a repository name")
						r.in = append(r.in, pattern{func(repo string) bool { return strings.HasPrefix(repo, stem) }, stem})
					},
					"filterType": func(path string, raw json.RawMessage) { p.text(path, raw, matchType, "PREFIX_MATCH") },
				}, "filter", "filterType")
			})
		},
	}, "destinations")
	return r
}

func (p *ecrParser) problem(path, format string, args ...any) {
	if path == "" {
		path = "replication configuration"
	}
	p.problems = append(p.problems, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// object calls the fields that raw has, in their order by name, and returns which there were; nil if raw is no object.
func (p *ecrParser) object(path string, raw json.RawMessage, fields map[string]field, required ...string) map[string]bool {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		p.mismatch(path, "an object", err)
		return nil
	}
	join := func(key string) string { return strings.TrimPrefix(path+"."+key, ".") }
	seen := make(map[string]bool)
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if f := fields[key]; f != nil {
			seen[key] = true
			f(join(key), m[key])
		} else {
			p.problem(join(key), "unknown key")
		}
	}
	for _, key := range required {
		if !seen[key] {
			p.problem(join(key), "missing")
		}
	}
	return seen
}

func (p *ecrParser) list(path string, raw json.RawMessage, each field) {
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil || items == nil {
		p.mismatch(path, "a list", err)
		return
	}
	for i, it := range items {
		each(fmt.Sprintf("%s[%d]", path, i), it)
	}
}

func (p *ecrParser) text(path string, raw json.RawMessage, valid *regexp.Regexp, want string) string {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		p.mismatch(path, "a text", err)
	} else if !valid.MatchString(s) {
		p.problem(path, "%q is not %s", s, want)
	}
	return s
}

// mismatch reports raw that is not what was wanted; a syntax error can only be that of the whole text.
func (p *ecrParser) mismatch(path, want string, err error) {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		p.problem(path, "byte %d: %v", syntax.Offset, err)
		return
	}
	p.problem(path, "want %s", want)
}
