package iam

import (
	"fmt"
	"slices"
	"strings"
)

// Request is what is to be decided.
type Request struct {
	Account  string // the principal's; "" for a service
	ARN      string // arn:PARTITION:iam::ACCOUNT:user/NAME or role/NAME, or a service such as events.amazonaws.com
	Action   string // "ecr:PutImage"
	Resource string // its ARN, or "*" for actions on no resource
	Owner    string // the account of the resource; "" as Account
	Context  map[string]string
}

// Verdict is a decision. Why says, of a refusal, what AWS's message would: "no identity-based policy allows the ecr:PutImage
// action", or "with an explicit deny in a resource-based policy".
type Verdict struct {
	Allowed bool
	Why     string
}

// Decide evaluates the policies of the principal and those of the resource. An explicit Deny anywhere wins. Within an account either
// side may allow, the resource's only by naming the principal itself and not just its account; across accounts both must.
func Decide(r Request, identity, resource []Document) Verdict {
	own, ownDeny := r.among(identity, false)
	theirs, theirDeny := r.among(resource, true)
	switch {
	case ownDeny:
		return Verdict{false, "with an explicit deny in an identity-based policy"}
	case theirDeny:
		return Verdict{false, "with an explicit deny in a resource-based policy"}
	}
	local := r.Owner == "" || r.Owner == r.Account
	service := r.Account == ""
	switch {
	case service && theirs != nobody, local && (own != nobody || theirs == itself), own != nobody && theirs != nobody:
		return Verdict{Allowed: true}
	case service || own != nobody:
		return Verdict{false, fmt.Sprintf("because no resource-based policy allows the %s action", r.Action)}
	}
	return Verdict{false, fmt.Sprintf("because no identity-based policy allows the %s action", r.Action)}
}

// grant is how far an Allow goes.
type grant uint8

const (
	nobody  grant = iota
	account       // the account is allowed, and decides itself who in it
	itself        // the principal is
)

func (r Request) among(docs []Document, attached bool) (best grant, deny bool) {
	for _, d := range docs {
		for _, s := range d.Statement {
			g := itself
			if attached {
				g = s.names(r)
			}
			if g == nobody || !s.covers(r) {
				continue
			}
			if s.Effect == Deny {
				return nobody, true
			}
			best = max(best, g)
		}
	}
	return best, false
}

// names says how a statement of a resource's policy names who asks.
func (s Statement) names(r Request) (g grant) {
	p := s.Principal
	switch {
	case p == nil:
		return nobody
	case p.All:
		return itself
	case r.Account == "":
		if slices.Contains(p.Service, r.ARN) {
			return itself
		}
		return nobody
	}
	for _, a := range p.AWS {
		switch {
		case a == "*" || a == r.ARN:
			return itself
		case a == r.Account || strings.HasPrefix(a, "arn:") && strings.HasSuffix(a, ":iam::"+r.Account+":root"):
			g = account
		}
	}
	return g
}

// covers reports whether action, resource and conditions of the statement are met; a policy of a repository names no resource.
func (s Statement) covers(r Request) bool {
	return slices.ContainsFunc(s.Action, func(a string) bool { return Match(strings.ToLower(a), strings.ToLower(r.Action)) }) &&
		(s.Resource == nil || slices.ContainsFunc(s.Resource, func(p string) bool { return Match(p, r.Resource) })) &&
		s.Condition.met(r)
}
