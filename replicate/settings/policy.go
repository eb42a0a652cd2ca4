package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// policy rewrites the policy of a repository: what names the source's account and region names the destination's then. Nobody may do
// more than before: what is not wholly understood is refused.
func (m Mapping) policy(text string) (string, error) {
	d, err := iam.Parse(iam.Repository, []byte(text))
	if err != nil {
		return "", err
	}
	r := rewriter{Mapping: m}
	for i := range d.Statement {
		if err := r.statement(&d.Statement[i]); err != nil {
			return "", fmt.Errorf("statement %d: %w", i, err)
		}
	}
	// The two accounts, told apart at the source, would become one, and each get what the other has.
	if r.own && r.theirs && m.From.Account != m.To.Account {
		return "", fmt.Errorf("it names both accounts, %s and %s, which would be one at the destination", m.From.Account, m.To.Account)
	}
	d.Version = iam.Version
	out, err := json.Marshal(d)
	return string(out), err
}

// rewriter notes which of the two accounts it met.
type rewriter struct {
	Mapping
	own, theirs bool
}

func (r *rewriter) statement(s *iam.Statement) error {
	p := s.Principal
	if p.All {
		return errors.New("its principal is everybody (*)")
	}
	if len(p.Service) > 0 && r.From.Partition != r.To.Partition {
		return fmt.Errorf("service %s is in partition %s", p.Service[0], r.From.Partition)
	}
	for _, name := range p.Service {
		if !service.MatchString(name) {
			return fmt.Errorf("service %q is not understood", name)
		}
	}
	for i, a := range p.AWS {
		var err error
		if p.AWS[i], err = r.principal(a); err != nil {
			return fmt.Errorf("principal %q: %w", a, err)
		}
	}
	for _, keys := range s.Condition {
		for key, values := range keys {
			for i, v := range values {
				var err error
				if values[i], err = r.value(key, v); err != nil {
					return fmt.Errorf("condition %s %q: %w", key, v, err)
				}
			}
		}
	}
	return nil
}

var (
	service  = regexp.MustCompile(`\A[a-z0-9.-]+\z`)
	account  = regexp.MustCompile(`\A[0-9]{12}\z`)
	identity = regexp.MustCompile(`\Aarn:[a-z0-9-]+:iam::[0-9]{12}:(?:root|(?:user|role)/[A-Za-z0-9+=,.@_/-]+)\z`) // no wildcard, no session
)

var errNotUnderstood = errors.New("not understood")

func (r *rewriter) principal(p string) (string, error) {
	switch {
	case account.MatchString(p):
		return r.account(p)
	case identity.MatchString(p):
		return r.arn(p)
	}
	return "", errNotUnderstood
}

// value is of a condition that iam.Parse knows.
func (r *rewriter) value(key, v string) (string, error) {
	switch key {
	case iam.PrincipalAccount, iam.SourceAccount:
		return r.account(v)
	case iam.PrincipalARN, iam.SourceARN:
		return r.arn(v)
	}
	return "", errNotUnderstood
}

func (r *rewriter) account(id string) (string, error) {
	switch {
	case !account.MatchString(id):
		return "", errNotUnderstood
	case id == r.From.Account:
		r.own = true
		return r.To.Account, nil
	case r.From.Partition != r.To.Partition:
		return "", fmt.Errorf("an account of partition %s", r.From.Partition)
	}
	r.theirs = r.theirs || id == r.To.Account
	return id, nil
}

// arn rewrites an ARN. It may have a wildcard in its resource, and only there: what it names is else not known.
func (r *rewriter) arn(v string) (string, error) {
	f := strings.SplitN(v, ":", 6) // arn, partition, service, region, account, resource
	if len(f) != 6 || f[0] != "arn" || f[1] != r.From.Partition || strings.ContainsAny(strings.Join(f[:5], ""), "*?$") || strings.Contains(f[5], "${") {
		return "", errNotUnderstood
	}
	own := f[4] == r.From.Account
	var err error
	if f[4], err = r.account(f[4]); err != nil {
		return "", err
	}
	if f[1] = r.To.Partition; own && f[3] == r.From.Region {
		f[3] = r.To.Region
	}
	return strings.Join(f, ":"), nil
}

// samePolicy reports whether two policies say the same; "" is none. It is an error if the one that is there cannot be replaced: it is
// not understood, or denies what would not be denied any more.
func samePolicy(want, have string) (bool, error) {
	if want == "" || have == "" {
		return want == have, nil
	}
	w, err := statements(want)
	if err != nil {
		return false, err
	}
	h, err := statements(have)
	if err != nil {
		return false, fmt.Errorf("the one that is there: %w", err)
	}
	for _, s := range h {
		if s.deny && !slices.ContainsFunc(w, func(o stated) bool { return o == s }) {
			return false, errors.New("the one that is there denies what would no longer be denied")
		}
	}
	return slices.Equal(w, h), nil
}

// stated is a statement in one form: ECR gives accounts back as the ARNs of their roots.
type stated struct {
	text string
	deny bool
}

func statements(text string) (all []stated, err error) {
	d, err := iam.Parse(iam.Repository, []byte(text))
	if err != nil {
		return nil, err
	}
	for _, s := range d.Statement {
		for i, a := range s.Principal.AWS {
			if f := strings.Split(a, ":"); len(f) == 6 && f[5] == "root" {
				s.Principal.AWS[i] = f[4]
			}
		}
		s.Sid = ""
		for _, list := range []iam.Strings{s.Action, s.Principal.AWS, s.Principal.Service} {
			slices.Sort(list)
		}
		for _, keys := range s.Condition {
			for _, values := range keys {
				slices.Sort(values)
			}
		}
		one, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		all = append(all, stated{string(one), s.Effect == iam.Deny})
	}
	slices.SortFunc(all, func(a, b stated) int { return strings.Compare(a.text, b.text) })
	return all, nil
}
