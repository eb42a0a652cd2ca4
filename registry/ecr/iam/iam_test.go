package iam

import (
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	for _, tc := range []struct {
		kind       Kind
		text, want string // want: part of the error; "" is none
	}{
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}`, ""},
		{Identity, `{"Version":"2012-10-17","Id":"x","Statement":[{"Sid":"a","Effect":"Deny","Action":["*"],"Resource":["a","b"]}]}`, ""},
		{Identity, `{"Version":"2008-10-17","Statement":[]}`, "version"},
		{Repository, `{"Version":"2008-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"1"},"Action":"ecr:*"}}`, ""},
		{Repository, `{"Version":"2007-10-17","Statement":[]}`, "version"},
		{Identity, `{"Statement":[]}`, "no statement"},
		{Identity, `{}`, "statement"},
		{Identity, `nonsense`, "invalid"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}{}`, "more than one"},
		{Identity, `{"Statement":{"Effect":"Permit","Action":"ecr:*","Resource":"*"}}`, "effect"},
		{Identity, `{"Statement":{"Effect":"Allow","NotAction":"ecr:*","Resource":"*"}}`, "NotAction"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr","Resource":"*"}}`, "service:Action"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*"}}`, "no resource"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"arn:${aws:username}"}}`, "variables"},
		{Identity, `{"Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:*","Resource":"*"}}`, "principal"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"1.2.3.4"}}}}`, "IpAddress"},
		{Identity, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*","Condition":{"StringEquals":{"aws:username":"x"}}}}`, "aws:username"},
		{Repository, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"1"},"Action":"ecr:*"}}`, ""},
		{Repository, `{"Statement":{"Effect":"Allow","Principal":{"AWS":"1"},"Action":"ecr:*","Resource":"*"}}`, "names none"},
		{Repository, `{"Statement":{"Effect":"Allow","Principal":{"Federated":"1"},"Action":"ecr:*"}}`, "Federated"},
		{Repository, `{"Statement":{"Effect":"Allow","Principal":{},"Action":"ecr:*"}}`, "nobody"},
		{Registry, `{"Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:*"}}`, "no resource"},
		{Registry, `{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}`, "principal"},
	} {
		d, err := Parse(tc.kind, []byte(tc.text))
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.text, err, tc.want)
		}
		if err == nil { // what is printed reads back as the same
			again, err := Parse(tc.kind, []byte(d.String()))
			if diff := cmp.Diff(d, again); err != nil || diff != "" {
				t.Errorf("%s: %v\n%s", d, err, diff)
			}
		}
	}
}

func TestDecide(t *testing.T) {
	const me, role, app = "111122223333", "arn:aws:iam::111122223333:role/mirror", "arn:aws:ecr:us-west-2:444455556666:repository/team/app"
	doc := func(kind Kind, statements ...string) []Document {
		d, err := Parse(kind, []byte(`{"Statement":[`+strings.Join(statements, ",")+`]}`))
		if err != nil {
			t.Fatal(err)
		}
		return []Document{d}
	}
	mine := doc(Identity, `{"Effect":"Allow","Action":["ecr:Get*","ecr:putimage"],"Resource":"arn:aws:ecr:us-west-2:*:repository/team/*"}`)
	deny := doc(Identity, `{"Effect":"Allow","Action":"ecr:*","Resource":"*"}`, `{"Effect":"Deny","Action":"ecr:PutImage","Resource":"*/app"}`)
	root := doc(Registry, `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"ecr:PutImage","Resource":"*"}`)
	named := doc(Repository, `{"Effect":"Allow","Principal":{"AWS":["999999999999","`+role+`"]},"Action":"ecr:PutImage"}`)
	noOne := doc(Repository, `{"Effect":"Deny","Principal":"*","Action":"*"}`)
	event := doc(Queue, `{"Effect":"Allow","Principal":{"Service":"events.amazonaws.com"},"Action":"sqs:SendMessage","Resource":"q","Condition":{"ArnLike":{"aws:SourceArn":"arn:*:rule/x"}}}`)
	put := Request{Account: me, ARN: role, Action: "ecr:PutImage", Resource: app, Owner: "444455556666"}
	own := put
	own.Owner = me
	rule := func(arn string) Request {
		return Request{ARN: "events.amazonaws.com", Action: "sqs:SendMessage", Resource: "q", Context: map[string]string{SourceARN: arn}}
	}
	for _, tc := range []struct {
		name               string
		r                  Request
		identity, resource []Document
		want               string
	}{
		{"own account", own, mine, nil, ""},
		{"nothing", own, nil, nil, "no identity-based policy allows the ecr:PutImage action"},
		{"own account, resource names me", own, nil, named, ""},
		{"own account, resource names the account", own, nil, root, "no identity-based"},
		{"across", put, mine, root, ""},
		{"across, by name", put, mine, named, ""},
		{"across, theirs alone", put, nil, named, "no identity-based"},
		{"across, mine alone", put, mine, nil, "no resource-based"},
		{"explicit deny", own, deny, named, "explicit deny in an identity-based"},
		{"their explicit deny", put, mine, append(root, noOne...), "explicit deny in a resource-based"},
		{"service", rule("arn:aws:events:us-west-2:1:rule/x"), nil, event, ""},
		{"service by another rule", rule("arn:aws:events:us-west-2:1:rule/y"), nil, event, "no resource-based"},
		{"not the service", put, mine, event, "no resource-based"},
	} {
		v := Decide(tc.r, tc.identity, tc.resource)
		if v.Allowed != (tc.want == "") || !strings.Contains(v.Why, tc.want) {
			t.Errorf("%s: %+v, want %q", tc.name, v, tc.want)
		}
	}
}

// Where path.Match has the same language (no slashes, no classes), it is the oracle.
func TestMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, s := rapid.StringMatching(`[ab*?]{0,8}`).Draw(t, "pattern"), rapid.StringMatching(`[ab]{0,8}`).Draw(t, "string")
		want, err := path.Match(p, s)
		if err != nil || Match(p, s) != want {
			t.Errorf("Match(%q, %q) is not %v (%v)", p, s, want, err)
		}
	})
	if !Match("a*/c", "a/b/c") {
		t.Error("* stops at a slash")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:*","Resource":"*"}}`)
	f.Add(`{"Statement":[{"Effect":"Deny","Principal":{"AWS":["1"]},"Action":["ecr:BatchGetImage"],"Condition":{"StringLike":{"aws:PrincipalArn":"*"}}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, k := range []Kind{Identity, Registry, Repository, Queue} {
			d, err := Parse(k, []byte(text))
			if err != nil {
				continue
			}
			if _, err := Parse(k, []byte(d.String())); err != nil {
				t.Errorf("%q printed as %s: %v", text, d, err)
			}
		}
	})
}
