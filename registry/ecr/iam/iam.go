// Package iam is the part of AWS's policy language that ECR's policies need: documents, read strictly, and the decision that
// they lead to. The emulator enforces with it, and `ecr-mirror iam-policy` prints its documents, so that what is printed is
// what was tested. Source: IAM User Guide, "IAM JSON policy elements reference" and "Policy evaluation logic".
//
// Limitations: what is not understood is refused, never passed over: NotAction, NotResource, NotPrincipal, policy variables,
// and conditions beyond those of conditions(). Session policies, permission boundaries and service control policies do not exist here.
package iam

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Version is that of the language that documents have, or leave out.
const Version = "2012-10-17"

// oldVersion differs in having no policy variables, which are refused anyway: many policies of repositories still say it.
const oldVersion = "2008-10-17"

// Effects of a statement.
const (
	Allow = "Allow"
	Deny  = "Deny"
)

// Document is a policy.
type Document struct {
	Version   string      `json:"Version,omitempty"`
	ID        string      `json:"Id,omitempty"`
	Statement []Statement `json:"Statement"`
}

// Statement of a policy. Principal is of policies that are attached to a resource, and of these alone.
type Statement struct {
	Sid       string     `json:"Sid,omitempty"`
	Effect    string     `json:"Effect"`
	Principal *Principal `json:"Principal,omitempty"`
	Action    Strings    `json:"Action"`
	Resource  Strings    `json:"Resource,omitempty"`
	Condition Condition  `json:"Condition,omitempty"`
}

// Strings is one string or a list of them; one is written alone.
type Strings []string

// Condition is operator -> key -> values: every operator and key must hold, by any of its values.
type Condition map[string]map[string]Strings

// Principal is who a statement is about.
type Principal struct {
	All     bool    `json:"-"` // "*"
	AWS     Strings `json:"AWS,omitempty"`
	Service Strings `json:"Service,omitempty"`
}

// Kind is where a policy is attached, which says what its statements must have.
type Kind uint8

const (
	Identity   Kind = iota // to a user or role: Resource and no Principal
	Registry               // to an ECR registry: Principal and Resource
	Repository             // to an ECR repository: Principal and no Resource (Amazon ECR User Guide, "Repository policies")
	Queue                  // to an SQS queue or KMS key: Principal and Resource
	Trust                  // to a role, for those who may assume it: Principal and no Resource
)

// Parse reads a document of a kind. Whatever it does not know is an error that names it.
func Parse(kind Kind, text []byte) (Document, error) {
	var raw struct {
		Version   string
		ID        string `json:"Id"`
		Statement json.RawMessage
	}
	if err := strict(text, &raw); err != nil {
		return Document{}, err
	}
	d := Document{Version: raw.Version, ID: raw.ID}
	if d.Version != "" && d.Version != Version && (kind != Repository || d.Version != oldVersion) {
		return d, fmt.Errorf("version %q: want %s", d.Version, Version)
	}
	if bytes.HasPrefix(bytes.TrimSpace(raw.Statement), []byte("{")) {
		d.Statement = make([]Statement, 1)
		if err := strict(raw.Statement, &d.Statement[0]); err != nil {
			return d, fmt.Errorf("statement: %w", err)
		}
	} else if err := strict(raw.Statement, &d.Statement); err != nil {
		return d, fmt.Errorf("statement: %w", err)
	}
	if len(d.Statement) == 0 {
		return d, errors.New("no statement")
	}
	for i, s := range d.Statement {
		if err := s.check(kind); err != nil {
			return d, fmt.Errorf("statement %d: %w", i, err)
		}
	}
	return d, nil
}

func strict(text []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one document")
	}
	return nil
}

func (s Statement) check(kind Kind) error {
	switch {
	case s.Effect != Allow && s.Effect != Deny:
		return fmt.Errorf("effect %q: want Allow or Deny", s.Effect)
	case len(s.Action) == 0:
		return errors.New("no action")
	case (s.Principal != nil) != (kind != Identity):
		return errors.New("a principal belongs into policies of resources, and there it is required")
	case (kind == Repository || kind == Trust) && s.Resource != nil:
		return errors.New("it is attached to its resource, and names none")
	case kind != Repository && kind != Trust && len(s.Resource) == 0:
		return errors.New("no resource")
	}
	for _, a := range s.Action {
		if service, name, ok := strings.Cut(a, ":"); a != "*" && (!ok || service == "" || name == "") {
			return fmt.Errorf("action %q: want service:Action", a)
		}
	}
	if s.Principal != nil && !s.Principal.All && len(s.Principal.AWS)+len(s.Principal.Service) == 0 {
		return errors.New("nobody is its principal")
	}
	for _, list := range [][]string{s.Action, s.Resource} {
		for _, v := range list {
			if strings.Contains(v, "${") {
				return fmt.Errorf("%q: policy variables are not understood", v)
			}
		}
	}
	return s.Condition.check()
}

func (s *Strings) UnmarshalJSON(b []byte) error {
	var one string
	if err := json.Unmarshal(b, &one); err == nil {
		*s = Strings{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(s))
}

func (s Strings) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

func (p *Principal) UnmarshalJSON(b []byte) error {
	if string(b) == `"*"` {
		p.All = true
		return nil
	}
	type plain Principal
	if err := strict(b, (*plain)(p)); err != nil {
		return fmt.Errorf("principal: %w", err)
	}
	return nil
}

func (p Principal) MarshalJSON() ([]byte, error) {
	if p.All {
		return []byte(`"*"`), nil
	}
	type plain Principal
	return json.Marshal(plain(p))
}

// String is the document as it is printed and put: indented JSON.
func (d Document) String() string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return err.Error() // unreachable: strings all the way down
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Without returns the document without its statement i.
func (d Document) Without(i int) Document {
	d.Statement = slices.Delete(slices.Clone(d.Statement), i, i+1)
	return d
}

// Match is IAM's pattern: * is any run of characters, ? is one; there are no classes, and * crosses everything.
func Match(pattern, s string) bool {
	star, from := -1, 0 // of the last * seen, and what it was matched up to
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			from++
			p, i = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
