package ecrtest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// Credentials returns the long-term credentials of an account's administrator, who may do everything in the account. They
// depend on the account number alone: nothing here is secret.
func (e *Emulator) Credentials(account string) aws.Credentials {
	return e.Role(account, "admin")
}

// Role returns the credentials of the role name in account, created when new, which may do only the given actions
// ("ecr:BatchGetImage", "ecr:*") on everything; none means all of them. What is given again replaces the earlier.
func (e *Emulator) Role(account, name string, actions ...string) aws.Credentials {
	if len(actions) == 0 {
		return e.grant(account, name, allowAll()...)
	}
	return e.grant(account, name, iam.Document{Statement: []iam.Statement{{Effect: iam.Allow, Action: actions, Resource: iam.Strings{"*"}}}})
}

// RoleWith is Role with identity policies. One that package iam does not wholly understand is an error.
func (e *Emulator) RoleWith(account, name string, policies ...string) (aws.Credentials, error) {
	var docs []iam.Document
	for i, text := range policies {
		d, err := iam.Parse(iam.Identity, []byte(text))
		if err != nil {
			return aws.Credentials{}, fmt.Errorf("emulator: policy %d of %s: %w", i, name, err)
		}
		docs = append(docs, d)
	}
	return e.grant(account, name, docs...), nil
}

func allowAll() []iam.Document {
	return []iam.Document{{Statement: []iam.Statement{{Effect: iam.Allow, Action: iam.Strings{"*"}, Resource: iam.Strings{"*"}}}}}
}

// Trust lets only those assume a role whom its trust policy allows; without one, everybody may who has sts:AssumeRole.
func (e *Emulator) Trust(account, name, policy string) error {
	d, err := iam.Parse(iam.Trust, []byte(policy))
	if err != nil {
		return fmt.Errorf("emulator: trust policy of %s: %w", name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trusts[[2]string{account, name}] = []iam.Document{d}
	return nil
}

func (e *Emulator) grant(account, name string, policies ...iam.Document) aws.Credentials {
	id, secret := "AKIA"+account+"EMUL", hashed("secret of "+account)
	if name != "admin" {
		h := hashed("role " + account + " " + name)
		id, secret = "AKIA"+account+fmt.Sprintf("%X", h[:2]), hashed("secret of "+account+" "+name)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.accounts[account] = true
	for key, p := range e.principals { // sessions of the role as well
		if p.Account == account && p.Name == name {
			renewed := *p
			renewed.Policies = policies
			e.principals[key] = &renewed
		}
	}
	e.principals[id] = &principal{Account: account, Name: name, Key: id, Secret: secret, Policies: policies}
	return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, Source: "ecrtest"}
}

// arn is the principal's, as policies name it.
func (p *principal) arn(region string) string {
	kind := "role"
	if p.Name == "admin" {
		kind = "user"
	}
	return "arn:" + partition(region) + ":iam::" + p.Account + ":" + kind + "/" + p.Name
}

// caller is the principal as sts and error messages name it: a role by its session.
func (p *principal) caller(region string) string {
	if p.Name == "admin" {
		return p.arn(region)
	}
	return "arn:" + partition(region) + ":sts::" + p.Account + ":assumed-role/" + p.Name + "/" + cmp.Or(p.Session, "ecrtest")
}

func (p *principal) request(region, action, resource, owner string) iam.Request {
	return iam.Request{Account: p.Account, ARN: p.arn(region), Action: action, Resource: resource, Owner: owner}
}

// denied is the exception of a refusal, in AWS's words.
func denied(who *principal, region, action, resource string, v iam.Verdict) error {
	return errf("AccessDeniedException", "User: %s is not authorized to perform: %s on resource: %s %s", who.caller(region), action, resource, v.Why)
}

// repositoryARN is that of name in r; "*" for all.
func (r *Registry) repositoryARN(name string) string {
	return "arn:" + partition(r.Region) + ":ecr:" + r.Region + ":" + r.Account + ":repository/" + name
}

// decide is iam.Decide, noted where Options.Decisions asks for it.
func (e *Emulator) decide(r iam.Request, identity, resource []iam.Document) iam.Verdict {
	v := iam.Decide(r, identity, resource)
	if e.opt.Decisions != nil {
		e.opt.Decisions(r, v)
	}
	return v
}

// anyRepository are the actions that, without a name, are about every repository; others are then about none.
func anyRepository() []string { return []string{"ecr:DescribeRepositories"} }

// allow reports whether who may do action ("ecr:PutImage") on repository name (or "" for the registry) of r, by the policies of
// who, of the registry and of the repository. The caller does not hold r.mu.
func (r *Registry) allow(who *principal, action, name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.allowLocked(who, action, name)
}

func (r *Registry) allowLocked(who *principal, action, name string) error {
	resource := r.repositoryARN(name)
	switch {
	case action == "ecr:GetAuthorizationToken": // only the caller's own policy counts
		v := r.emu.decide(who.request(r.Region, action, "*", ""), who.Policies, nil)
		if !v.Allowed {
			return denied(who, r.Region, action, "*", v)
		}
		return nil
	case name == "" && slices.Contains(anyRepository(), action):
		resource = r.repositoryARN("*")
	case name == "":
		resource = "*"
	}
	v := r.emu.decide(who.request(r.Region, action, resource, r.Account), who.Policies, r.policies(who.Account, name))
	if v.Allowed {
		return nil
	}
	return denied(who, r.Region, action, resource, v)
}

// policies are those attached to the registry and to its repository name. The caller holds r.mu.
func (r *Registry) policies(caller, name string) []iam.Document {
	var docs []iam.Document
	if r.emu.opt.CrossAccount || r.allowed[caller] {
		docs = append(docs, iam.Document{Statement: []iam.Statement{{Effect: iam.Allow, Principal: &iam.Principal{AWS: iam.Strings{caller}},
			Action: iam.Strings{"*"}, Resource: iam.Strings{"*"}}}})
	}
	for _, d := range []struct {
		kind iam.Kind
		text string
	}{{iam.Registry, r.Policy}, {iam.Repository, r.repositoryPolicy(name)}} {
		if d.text == "" {
			continue
		}
		if doc, err := iam.Parse(d.kind, []byte(d.text)); err == nil { // it was parsed when it was put
			docs = append(docs, doc)
		}
	}
	return docs
}

func (r *Registry) repositoryPolicy(name string) string {
	if p := r.repos[name]; p != nil {
		return p.Policy
	}
	return ""
}

// checkPolicy is what a policy has to pass to be attached: ECR refuses what is malformed, and this emulator also what it could
// not enforce, saying what it is.
func checkPolicy(kind iam.Kind, text string) error {
	what := map[iam.Kind]string{iam.Registry: "registry", iam.Repository: "repository"}[kind]
	if len(text) > 10240 {
		return invalidParameter("PolicyText", "Member must have length less than or equal to 10240")
	}
	if _, err := iam.Parse(kind, []byte(text)); err != nil {
		return invalidParameter("PolicyText", "Invalid "+what+" policy provided: "+err.Error())
	}
	return nil
}
