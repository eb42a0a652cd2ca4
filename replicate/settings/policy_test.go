package settings

import (
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// statement is one with a principal and what else is given, as JSON.
func statement(principal string, more ...string) string {
	return `{"Version":"2008-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"ecr:BatchGetImage"` + strings.Join(append([]string{""}, more...), ",") + `}]}`
}

func TestPolicyRewriting(t *testing.T) {
	aws := func(p string) string { return `{"AWS":"` + p + `"}` }
	condition := func(op, key, value string) string {
		return `"Condition":{"` + op + `":{"` + key + `":"` + value + `"}}`
	}
	lambda := func(more ...string) string { return statement(`{"Service":"lambda.amazonaws.com"}`, more...) }
	for name, tc := range map[string]struct{ text, want, refused string }{
		"own account":        {statement(aws(from)), statement(aws(to)), ""},
		"own role":           {statement(aws("arn:aws:iam::" + from + ":role/path/ci")), statement(aws("arn:aws:iam::" + to + ":role/path/ci")), ""},
		"another account":    {statement(aws("arn:aws:iam::" + third + ":root")), statement(aws(third)), ""},
		"the destination's":  {statement(aws(to)), statement(aws(to)), ""},
		"a service":          {lambda(), lambda(), ""},
		"account and region": {lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-west-2:"+from+":function:*")), lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:eu-central-1:"+to+":function:*")), ""},
		"another region":     {lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-east-1:"+from+":function:f")), lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-east-1:"+to+":function:f")), ""},
		"another's function": {lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-west-2:"+third+":function:f")), lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-west-2:"+third+":function:f")), ""},
		"source account":     {lambda(condition("StringEquals", iam.SourceAccount, from)), lambda(condition("StringEquals", iam.SourceAccount, to)), ""},

		"everybody":                {statement(`"*"`), "", "everybody"},
		"every AWS principal":      {statement(aws("*")), "", "not understood"},
		"every account":            {statement(aws("arn:aws:iam::*:root")), "", "not understood"},
		"every role":               {statement(aws("arn:aws:iam::" + from + ":role/*")), "", "not understood"},
		"a session":                {statement(aws("arn:aws:sts::" + from + ":assumed-role/ci/1")), "", "not understood"},
		"a principal that is lost": {statement(aws("AROAEXAMPLE")), "", "not understood"},
		"federated":                {statement(`{"Federated":"x"}`), "", "Federated"},
		"every service":            {statement(`{"Service":"*"}`), "", "not understood"},
		"not a principal":          {strings.Replace(statement(aws(from)), "Principal", "NotPrincipal", 1), "", "NotPrincipal"},
		"not an action":            {strings.Replace(statement(aws(from)), "Action", "NotAction", 1), "", "NotAction"},
		"unknown condition":        {statement(aws(from), condition("StringEquals", "aws:PrincipalOrgID", "o-1")), "", "aws:PrincipalOrgID"},
		"unknown operator":         {statement(aws(from), condition("StringNotEquals", iam.PrincipalAccount, third)), "", "StringNotEquals"},
		"condition out of place":   {statement(aws(from), condition("StringEquals", iam.ViaService, "x")), "", "not understood"},
		"pattern of accounts":      {lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-west-2:*:function:f")), "", "not understood"},
		"pattern of everything":    {lambda(condition("StringLike", iam.SourceARN, "arn:*")), "", "not understood"},
		"pattern of an account":    {lambda(condition("StringLike", iam.SourceAccount, "1*")), "", "not understood"},
		"a variable":               {lambda(condition("ArnLike", iam.SourceARN, "arn:aws:lambda:us-west-2:"+from+":function:${x}")), "", "not understood"},
		"another partition":        {statement(aws("arn:aws-cn:iam::" + third + ":root")), "", "not understood"},
		"both accounts":            {statement(`{"AWS":["` + from + `","arn:aws:iam::` + to + `:role/ci"]}`), "", "names both accounts"},
		"no policy":                {"nonsense", "", "invalid"},
	} {
		got, err := mapping().policy(tc.text)
		wantText(t, err, tc.refused)
		if tc.refused != "" {
			if got != "" {
				t.Errorf("%s: refused, and yet %s", name, got)
			}
			continue
		}
		if same, err := samePolicy(tc.want, got); err != nil || !same {
			t.Errorf("%s: %s, want %s (%v)", name, got, tc.want, err)
		}
	}
}

// Into another partition go the source's own account and nobody else's.
func TestPolicyAcrossPartitions(t *testing.T) {
	m := mapping()
	m.To = Place{"aws-cn", to, "cn-north-1"}
	got, err := m.policy(statement(`{"AWS":"arn:aws:iam::` + from + `:role/ci"}`))
	if err != nil || !strings.Contains(got, `"arn:aws-cn:iam::`+to+`:role/ci"`) {
		t.Errorf("%s, %v", got, err)
	}
	for _, p := range []string{`{"AWS":"` + third + `"}`, `{"AWS":"arn:aws:iam::` + third + `:role/ci"}`, `{"Service":"lambda.amazonaws.com"}`} {
		_, err := m.policy(statement(p))
		wantText(t, err, "partition aws")
	}
}

// What is there is replaced only if it is understood and nothing that it denies would be allowed.
func TestPolicyCompare(t *testing.T) {
	source := statement(`{"AWS":"` + from + `"}`)
	there := statement(`{"AWS":"arn:aws:iam::` + to + `:root"}`)
	deny := `{"Statement":[{"Effect":"Deny","Principal":{"AWS":"` + third + `"},"Action":"ecr:*"}]}`
	with := func(text string) registry.Settings {
		return registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256", Policy: text}
	}
	for name, tc := range map[string]struct {
		source, there string
		action        Action
		differs       bool
		refused       string
	}{
		"the same":              {source, there, 0, false, ""},
		"none there":            {source, "", Set, true, ""},
		"another there":         {source, statement(`{"AWS":"` + third + `"}`), Set, true, ""},
		"only there":            {"", there, Keep, true, ""},
		"denies":                {source, deny, Refuse, true, "denies what would no longer"},
		"denies as well":        {deny, deny, 0, false, ""},
		"not understood":        {source, statement(`{"Federated":"x"}`), Refuse, true, "the one that is there"},
		"refused, and no other": {statement(`"*"`), there, Refuse, true, "everybody"},
	} {
		got := mapping().Want(with(tc.source)).Compare(with(tc.there))
		if len(got) > 0 != tc.differs || len(got) > 1 || tc.differs && got[0].Action != tc.action {
			t.Errorf("%s: %+v", name, got)
		}
		if tc.refused != "" && len(got) > 0 {
			wantText(t, got[0].Err, tc.refused)
		}
	}
}

// Whatever is taken over names nobody by a pattern, and means the same when it is rewritten once more.
func FuzzPolicy(f *testing.F) {
	f.Add(statement(`{"AWS":"` + from + `"}`))
	f.Add(statement(`{"Service":"lambda.amazonaws.com"}`, `"Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:lambda:us-west-2:`+from+`:function:*"}}`))
	f.Add(statement(`"*"`))
	f.Fuzz(func(t *testing.T, text string) {
		got, err := mapping().policy(text)
		if err != nil {
			return
		}
		d, err := iam.Parse(iam.Repository, []byte(got))
		if err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		for _, s := range d.Statement {
			if p := strings.Join(append(s.Principal.AWS, s.Principal.Service...), " "); s.Principal.All || strings.ContainsAny(p, "*?") || strings.Contains(p, from) {
				t.Errorf("%q became %s", text, got)
			}
		}
		again, err := mapping().policy(got)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := samePolicy(got, again); err != nil || !same {
			t.Errorf("%s, again %s: %v", got, again, err)
		}
	})
}
