package rules_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

var own = rules.Destination{}

func TestRules(t *testing.T) {
	for _, tc := range []struct {
		name      string
		rules     []rules.Rule
		repo, tag string
		want      bool
	}{
		{"no rules", nil, "any/thing", "v1", true},
		{"no rules, no tag", nil, "any/thing", "", true},
		{"empty rule", []rules.Rule{{}}, "any/thing", "v1", true},
		{"exact", []rules.Rule{{Repositories: []string{"team/app"}}}, "team/app", "v1", true},
		{"exact is not a prefix", []rules.Rule{{Repositories: []string{"team/app"}}}, "team/app2", "v1", false},
		{"exact is not a suffix", []rules.Rule{{Repositories: []string{"app"}}}, "team/app", "v1", false},
		{"a dot is a dot", []rules.Rule{{Repositories: []string{"a.b"}}}, "axb", "v1", false},
		{"star", []rules.Rule{{Repositories: []string{"team/*"}}}, "team/app", "v1", true},
		{"star stops at a slash", []rules.Rule{{Repositories: []string{"team/*"}}}, "team/app/x", "v1", false},
		{"two stars do not", []rules.Rule{{Repositories: []string{"team/**"}}}, "team/app/x", "v1", true},
		{"two stars in the middle", []rules.Rule{{Repositories: []string{"team/**/x"}}}, "team/a/b/x", "v1", true},
		{"question mark", []rules.Rule{{Repositories: []string{"app?"}}}, "app1", "v1", true},
		{"question mark is one", []rules.Rule{{Repositories: []string{"app?"}}}, "app", "v1", false},
		{"question mark is no slash", []rules.Rule{{Repositories: []string{"app?x"}}}, "app/x", "v1", false},
		{"any of the patterns", []rules.Rule{{Repositories: []string{"a", "b"}}}, "b", "v1", true},
		{"excluded", []rules.Rule{{Repositories: []string{"team/**"}, Exclude: []string{"team/tmp-*"}}}, "team/tmp-1", "v1", false},
		{"exclude alone", []rules.Rule{{Exclude: []string{"tmp"}}}, "app", "v1", true},
		{"another rule takes what one excludes", []rules.Rule{{Exclude: []string{"tmp"}}, {Repositories: []string{"tmp"}}}, "tmp", "v1", true},
		{"tag", []rules.Rule{{Tags: []string{"v*", "stable"}}}, "app", "stable", true},
		{"other tag", []rules.Rule{{Tags: []string{"v*", "stable"}}}, "app", "latest", false},
		{"tags want a tag", []rules.Rule{{Tags: []string{"*"}}}, "app", "dev", true},
		{"any tag is a tag", []rules.Rule{{Tags: []string{"*", "/.*/"}}}, "app", "", false},
		{"regex", []rules.Rule{{Repositories: []string{`/team-[0-9]+/app/`}}}, "team-42/app", "v1", true},
		{"regex is anchored", []rules.Rule{{Repositories: []string{`/team/`}}}, "team/app", "v1", false},
		{"regex alternatives are anchored", []rules.Rule{{Repositories: []string{`/a|b/`}}}, "xb", "v1", false},
		{"regex excludes", []rules.Rule{{Exclude: []string{`/.*-(tmp|dev)/`}}}, "app-dev", "v1", false},
		{"regex of tags", []rules.Rule{{Tags: []string{`/v\d+(\.\d+)*/`}}}, "app", "v1.2", true},
		{"excluded tag", []rules.Rule{{ExcludeTags: []string{"*-dev", "/pr-\\d+/"}}}, "app", "pr-7", false},
		{"excluded tags leave the others", []rules.Rule{{ExcludeTags: []string{"*-dev"}}}, "app", "v1", true},
		{"excluded tags leave images without one", []rules.Rule{{ExcludeTags: []string{"*"}}}, "app", "", true},
		{"tags but not these", []rules.Rule{{Tags: []string{"v*"}, ExcludeTags: []string{"*-rc?"}}}, "app", "v1-rc1", false},
		{"version", []rules.Rule{{Tags: []string{"semver:^1.2"}}}, "app", "v1.9.0", true},
		{"version without v", []rules.Rule{{Tags: []string{"semver: >=1.2 <2 || 4.0.1"}}}, "app", "4.0.1", true},
		{"version out of range", []rules.Rule{{Tags: []string{"semver:^1.2"}}}, "app", "v2.0.0", false},
		{"a short version is none", []rules.Rule{{Tags: []string{"semver:*"}}}, "app", "1.2", false},
		{"a date is no version", []rules.Rule{{Tags: []string{"semver:*"}}}, "app", "20260101", false},
		{"prerelease", []rules.Rule{{Tags: []string{"semver:>=1.2"}}}, "app", "1.3.0-rc.1", false},
		{"prerelease asked for", []rules.Rule{{Tags: []string{"semver:>=1.2-0"}}}, "app", "1.3.0-rc.1", true},
		{"Helm's build metadata", []rules.Rule{{Tags: []string{"semver:=1.3.0"}}}, "app", "1.3.0_a.b", true},
		{"upper case tag", []rules.Rule{{Tags: []string{"RC-?"}}}, "app", "RC-1", true},
		{"repository and tag", []rules.Rule{{Repositories: []string{"a"}, Tags: []string{"v1"}}}, "b", "v1", false},
	} {
		s, err := rules.New(tc.rules, nil)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got := s.At(own).Match(tc.repo, tc.tag); got != tc.want {
			t.Errorf("%s: match %s:%s is %v, want %v", tc.name, tc.repo, tc.tag, got, tc.want)
		}
	}
}

func TestRulesProblems(t *testing.T) {
	named := map[string]rules.Destination{"own": {}, "a.example.com": {Host: "a.example.com"}}
	_, err := rules.New([]rules.Rule{{Repositories: []string{"ok", "Upper"}}, {Exclude: []string{""}, Tags: []string{"a/b", "[x]"}},
		{Repositories: []string{"/(a/", "/((a{100}){100})/", "/(abcdefghij){999}/", strings.Repeat("a", 513)},
			Tags: []string{"semver: one", "semver:" + strings.Repeat("1", 513)}, ExcludeTags: []string{"//"}},
		{Destinations: []string{"own", "a.example.com", "b.example.com"}, Rename: &rules.Rename{From: "a", To: "/"}}, {Rename: &rules.Rename{}, Platforms: []string{"linux/amd64", "linux", "Linux/amd64", "linux/arm/v7/x"}}}, named)
	want := []string{
		`rules[0].repositories[1]: pattern "Upper": empty or with a character that no name has`,
		`rules[1].exclude[0]: pattern "": empty or with a character that no name has`,
		`rules[1].tags[0]: pattern "a/b": empty or with a character that no name has`,
		`rules[1].tags[1]: pattern "[x]": empty or with a character that no name has`,
		`rules[2].repositories[0]: pattern /(a/: missing closing )`,
		`rules[2].repositories[1]: pattern /((a{100}){100})/: invalid repeat count`,
		`rules[2].repositories[2]: pattern /(abcdefghij){999}/: too large`,
		`rules[2].repositories[3]: pattern of 513 bytes, more than 512`,
		`rules[2].tags[0]: " one" is not a range of semantic versions`,
		`rules[2].tags[1]: range of 513 bytes, more than 512`,
		`rules[2].excludeTags[0]: pattern "//": empty or with a character that no name has`,
		`rules[3].destinations[2]: "b.example.com" is no destination of the mirror`,
		`rules[3].rename.from: "a" is not the beginning of a repository name that ends with a slash`,
		`rules[3].rename.to: "/" is not the beginning of a repository name that ends with a slash`,
		`rules[4].platforms[1]: "linux" is not a platform like linux/amd64 or linux/arm/v7`,
		`rules[4].platforms[2]: "Linux/amd64" is not a platform like linux/amd64 or linux/arm/v7`,
		`rules[4].platforms[3]: "linux/arm/v7/x" is not a platform like linux/amd64 or linux/arm/v7`,
		`rules[4].rename.from: neither from nor to`,
	}
	if diff := cmp.Diff(want, lines(err)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

// describeRegistry is what `aws ecr describe-registry` prints.
const describeRegistry = `{
    "registryId": "111122223333",
    "replicationConfiguration": {
        "rules": [
            {
                "destinations": [
                    {"region": "eu-central-1", "registryId": "111122223333"},
                    {"region": "ap-southeast-2", "registryId": "444455556666"}
                ],
                "repositoryFilters": [
                    {"filter": "prod/", "filterType": "PREFIX_MATCH"},
                    {"filter": "base", "filterType": "PREFIX_MATCH"}
                ]
            },
            {"destinations": [{"region": "eu-central-1", "registryId": "111122223333"}, {"region": "us-east-1", "registryId": "111122223333"}]}
        ]
    }
}`

func TestECR(t *testing.T) {
	frankfurt := rules.Destination{Region: "eu-central-1", Account: "111122223333"}
	sydney := rules.Destination{Region: "ap-southeast-2", Account: "444455556666"}
	virginia := rules.Destination{Region: "us-east-1", Account: "111122223333"}
	s, id, err := rules.ParseECR([]byte(describeRegistry))
	if err != nil || id != "111122223333" {
		t.Fatalf("registry %q, %v", id, err)
	}
	for repo, want := range map[string][]rules.Destination{
		"prod/app":   {frankfurt, sydney, virginia},
		"baseline":   {frankfurt, sydney, virginia}, // a prefix, not a path
		"production": {frankfurt, virginia},
		"my/prod/x":  {frankfurt, virginia},
	} {
		for _, tag := range []string{"v1", ""} {
			if diff := cmp.Diff(want, s.Destinations(repo, tag)); diff != "" {
				t.Errorf("destinations of %s:%s (-want +got):\n%s", repo, tag, diff)
			}
		}
	}
	if diff := cmp.Diff([]rules.Destination{frankfurt, sydney, virginia}, s.All()); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if at := s.At(sydney); !at.Match("prod/app", "v1") || at.Match("other", "v1") {
		t.Error("the part that ends in Sydney is not the first rule")
	}
	if s.At(rules.Destination{Region: "eu-west-1", Account: "111122223333"}).Match("prod/app", "v1") {
		t.Error("nothing ends in a region that no rule names")
	}
	if s.At(own).Match("prod/app", "v1") {
		t.Error("ECR's rules name no own destination")
	}
}

// More destinations, rules and filters than ECR itself admits (25, 10 and 100).
func TestECRBeyondItsLimits(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"replicationConfiguration":{"rules":[`)
	for i := range 12 {
		fmt.Fprintf(&b, `%.*s{"destinations":[`, min(i, 1), ",")
		for j := range 30 {
			fmt.Fprintf(&b, `%.*s{"region":"region-%d","registryId":"%012d"}`, min(j, 1), ",", j, i)
		}
		b.WriteString(`],"repositoryFilters":[`)
		for j := range 120 {
			fmt.Fprintf(&b, `%.*s{"filter":"team-%d/%d/","filterType":"PREFIX_MATCH"}`, min(j, 1), ",", i, j)
		}
		b.WriteString(`]}`)
	}
	b.WriteString(`]}}`)
	s, _, err := rules.ParseECR([]byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.All()); n != 12*30 {
		t.Errorf("%d destinations", n)
	}
	last := rules.Destination{Region: "region-29", Account: "000000000011"}
	if !s.At(last).Match("team-11/119/app", "v1") || s.At(last).Match("team-10/119/app", "v1") || s.At(last).Match("team-11/120/app", "v1") {
		t.Error("the last filter of the last rule does not decide about the last destination")
	}
	if n := len(s.Destinations("team-7/0/x", "")); n != 30 {
		t.Errorf("%d destinations of one rule's repository", n)
	}
}

func TestECRForms(t *testing.T) {
	const bare = `{"rules":[{"destinations":[{"region":"eu-west-1","registryId":"111122223333"}]}]}`
	for name, text := range map[string]string{"bare": bare, "wrapped": `{"replicationConfiguration":` + bare + `}`} {
		s, id, err := rules.ParseECR([]byte(text))
		if err != nil || id != "" || len(s.Destinations("app", "v1")) != 1 {
			t.Errorf("%s: %q, %v, want a set for everything", name, id, err)
		}
	}
	s, _, err := rules.ParseECR([]byte(`{"registryId":"111122223333","replicationConfiguration":{"rules":[]}}`))
	if err != nil || len(s.Destinations("app", "v1")) != 0 {
		t.Errorf("no rules in ECR: %v, want nothing replicated", err)
	}
}

func TestECRProblems(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{``, []string{"replication configuration: byte 0: unexpected end of JSON input"}},
		{`{"rules":[}`, []string{"replication configuration: byte 11: invalid character '}' looking for beginning of value"}},
		{`[]`, []string{"replication configuration: want an object"}},
		{`null`, []string{"replication configuration: want an object"}},
		{`{}`, []string{"replication configuration: want either replicationConfiguration or rules"}},
		{`{"rules":[],"replicationConfiguration":{"rules":[]}}`, []string{"replication configuration: want either replicationConfiguration or rules"}},
		{`{"registryId":1,"Rules":[],"replicationConfiguration":{}}`, []string{
			"Rules: unknown key", "registryId: want a text", "replicationConfiguration.rules: missing"}},
		{`{"rules":[{"destinations":[{"region":"EU"},7],"repositoryFilters":[{"filter":"a","filterType":"REGEX"},{"filterType":"PREFIX_MATCH","x":1}]},{"repositoryFilters":null}]}`, []string{
			`rules[0].destinations[0].region: "EU" is not a region`,
			`rules[0].destinations[0].registryId: missing`,
			`rules[0].destinations[1]: want an object`,
			`rules[0].repositoryFilters[0].filterType: "REGEX" is not PREFIX_MATCH`,
			`rules[0].repositoryFilters[1].x: unknown key`,
			`rules[0].repositoryFilters[1].filter: missing`,
			`rules[1].repositoryFilters: want a list`,
			`rules[1].destinations: missing`,
		}},
		{`{"rules":[{"destinations":[{"region":"eu-west-1","registryId":"12"}],"repositoryFilters":[{"filter":"","filterType":"PREFIX_MATCH"}]}]}`, []string{
			`rules[0].destinations[0].registryId: "12" is not 12 digits`,
			`rules[0].repositoryFilters[0].filter: "" is not the beginning of a repository name`,
		}},
	} {
		s, _, err := rules.ParseECR([]byte(tc.text))
		if diff := cmp.Diff(tc.want, lines(err)); diff != "" || s != nil {
			t.Errorf("%s: problems (-want +got):\n%s", tc.text, diff)
		}
	}
}

func TestJoin(t *testing.T) {
	globs, err := rules.New([]rules.Rule{{Repositories: []string{"app"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	imported, _, err := rules.ParseECR([]byte(describeRegistry))
	if err != nil {
		t.Fatal(err)
	}
	if got := rules.Join(globs, imported).Destinations("app", ""); len(got) != 3 || got[0] != own {
		t.Errorf("destinations of both: %v, want the own first, then two", got)
	}
	if j := rules.Join(imported, nil); !j.At(own).Match("x", "") || len(j.All()) != 1 {
		t.Errorf("joined with everything: %v, want everything", j.All())
	}
	var none *rules.Set
	if at := none.At(rules.Destination{Region: "eu-west-1"}); !at.Match("x", "v1") {
		t.Error("everything ends at every destination")
	}
}

func FuzzParseECR(f *testing.F) {
	f.Add([]byte(describeRegistry), "prod/app")
	f.Add([]byte(`{"rules":[]}`), "")
	f.Add([]byte(`{"rules":[{"destinations":[],"repositoryFilters":[]}]}`), "a")
	f.Fuzz(func(t *testing.T, data []byte, repo string) {
		s, id, err := rules.ParseECR(data)
		if err != nil {
			if s != nil || id != "" {
				t.Fatal("a set beside an error")
			}
			return
		}
		to := s.Destinations(repo, "")
		if len(to) != len(s.Destinations(repo, "v1")) {
			t.Fatal("a tag matters")
		}
		for _, d := range to {
			p := s.At(d)
			if d.Region == "" || len(d.Account) != 12 || !p.Match(repo, "") || !p.MatchRepo(repo) || p.There(repo) != repo {
				t.Fatalf("destination %v of %q", d, repo)
			}
		}
	})
}
