package ecrtest

import (
	"encoding/json"
	"path"
	"strings"
)

// allow reports whether who may do action ("ecr:PutImage") on repository name (or "" for the registry) of r. An account's own
// principals need their list of actions; others also need CrossAccount, Registry.Allow, the registry policy or the
// repository policy. The caller does not hold r.mu.
func (r *Registry) allow(who *principal, action, name string) error {
	resource := "arn:" + partition(r.Region) + ":ecr:" + r.Region + ":" + r.Account + ":repository/" + name
	if action == "ecr:GetAuthorizationToken" || name == "" {
		resource = "*"
	}
	denied := func(why string) error {
		return errf("AccessDeniedException", "User: arn:%s:iam::%s:user/%s is not authorized to perform: %s on resource: %s because %s allows the %s action",
			partition(r.Region), who.Account, who.Name, action, resource, why, action)
	}
	if len(who.Actions) > 0 && !matchAny(who.Actions, action) {
		return denied("no identity-based policy")
	}
	if who.Account == r.Account || r.emu.opt.CrossAccount || action == "ecr:GetAuthorizationToken" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.allowed[who.Account] || permits(r.Policy, who.Account, action, resource) {
		return nil
	}
	if p := r.repos[name]; p != nil && permits(p.Policy, who.Account, action, "") {
		return nil
	}
	return denied("no resource-based policy")
}

func matchAny(patterns []string, s string) bool {
	for _, p := range patterns {
		// path.Match keeps * from crossing a slash; IAM does not
		if ok, _ := path.Match(strings.ReplaceAll(p, "/", "|"), strings.ReplaceAll(s, "/", "|")); ok {
			return true
		}
	}
	return false
}

// permits reports whether a resource policy allows action to account. It reads Effect Allow with Principal.AWS, Action and
// Resource; an explicit Deny of the same form wins; a statement with a Condition is passed over. resource "" stands for the
// repository that the policy is attached to, whose statements name none.
func permits(policy, account, action, resource string) bool {
	var doc struct{ Statement json.RawMessage }
	if json.Unmarshal([]byte(policy), &doc) != nil {
		return false
	}
	type statement struct {
		Effect    string
		Principal json.RawMessage
		Action    json.RawMessage
		Resource  json.RawMessage
		Condition json.RawMessage
	}
	var all []statement
	if json.Unmarshal(doc.Statement, &all) != nil {
		all = make([]statement, 1)
		if json.Unmarshal(doc.Statement, &all[0]) != nil {
			return false
		}
	}
	allowed := false
	for _, s := range all {
		var by struct{ AWS json.RawMessage }
		who := oneOrMany(s.Principal)
		if json.Unmarshal(s.Principal, &by) == nil {
			who = oneOrMany(by.AWS)
		}
		named := false
		for _, w := range who {
			named = named || w == "*" || w == account || strings.HasPrefix(w, "arn:") && strings.Contains(w, "::"+account+":")
		}
		if !named || s.Condition != nil || !matchAny(oneOrMany(s.Action), action) || resource != "" && !matchAny(oneOrMany(s.Resource), resource) {
			continue
		}
		if s.Effect == "Deny" {
			return false
		}
		allowed = allowed || s.Effect == "Allow"
	}
	return allowed
}

func oneOrMany(raw json.RawMessage) []string {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return []string{one}
	}
	var many []string
	json.Unmarshal(raw, &many)
	return many
}
