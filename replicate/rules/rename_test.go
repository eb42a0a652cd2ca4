package rules_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

func TestRename(t *testing.T) {
	move := func(from, to string) *rules.Rename { return &rules.Rename{From: from, To: to} }
	for _, tc := range []struct {
		name  string
		rules []rules.Rule
		there map[string]string // of a repository here; "": it has no name there
	}{
		{"all below", []rules.Rule{{Rename: move("", "west/")}}, map[string]string{"app": "west/app", "team/app": "west/team/app", "west/app": "west/west/app"}},
		{"a prefix for another", []rules.Rule{{Rename: move("prod/", "mirror/prod/")}}, map[string]string{"prod/app": "mirror/prod/app", "production": "production"}},
		{"the first rule decides", []rules.Rule{{Repositories: []string{"a/**"}, Rename: move("a/", "b/")}, {Rename: move("", "all/")}},
			map[string]string{"a/x": "b/x", "b/x": "all/b/x", "c": "all/c"}},
		{"a rule without rename decides too", []rules.Rule{{Repositories: []string{"a/**"}}, {Rename: move("", "all/")}}, map[string]string{"a/x": "a/x", "c": "all/c"}},
		{"names do not meet", []rules.Rule{{Repositories: []string{"a/**"}, Rename: move("a/", "")}, {}}, map[string]string{"a/x": "x", "x": "", "a/b/c": "b/c", "b/c": ""}},
		{"nor with what no rule wants", []rules.Rule{{Repositories: []string{"a/**"}, Rename: move("a/", "")}}, map[string]string{"a/x": "x", "x": ""}},
		{"the first of two has the name", []rules.Rule{{Repositories: []string{"a/**"}, Rename: move("a/", "all/")}, {Repositories: []string{"b/**"}, Rename: move("b/", "all/")}},
			map[string]string{"a/x": "all/x", "b/x": ""}},
		{"a swap", []rules.Rule{{Repositories: []string{"a/**"}, Rename: move("a/", "b/")}, {Repositories: []string{"b/**"}, Rename: move("b/", "a/")}},
			map[string]string{"a/x": "b/x", "b/x": "a/x"}},
	} {
		p := mustNew(t, tc.rules).At(own)
		got := make(map[string]string)
		for repo, there := range tc.there {
			if got[repo] = p.There(repo); there != "" && p.Here(there) != repo {
				t.Errorf("%s: %q there is %q here, want %q", tc.name, there, p.Here(there), repo)
			}
		}
		if diff := cmp.Diff(tc.there, got); diff != "" {
			t.Errorf("%s: names there (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestDestinationsOfRules(t *testing.T) {
	sydney, other := rules.Destination{Region: "ap-southeast-2", Account: "444455556666"}, rules.Destination{Host: "b.example.com"}
	s, err := rules.New([]rules.Rule{
		{Repositories: []string{"a"}, Destinations: []string{"own", "sydney"}},
		{Repositories: []string{"b", "c"}},
		{Repositories: []string{"c"}, Destinations: []string{"other", "sydney", "other"}, Rename: &rules.Rename{To: "x/"}},
	}, map[string]rules.Destination{"own": {}, "sydney": sydney, "other": other})
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string][]rules.Destination{"a": {own, sydney}, "b": {own}, "c": {own, sydney, other}, "d": {}} {
		if diff := cmp.Diff(want, s.Destinations(repo, "v1")); diff != "" {
			t.Errorf("destinations of %s (-want +got):\n%s", repo, diff)
		}
	}
	// Another destination's rule does not rename at the own one.
	if own, there := s.At(own).There("c"), s.At(other).There("c"); own != "c" || there != "x/c" {
		t.Errorf("c is %q at the own destination and %q at the other", own, there)
	}
	// The own destination may be named either way.
	if p := s.At(own, sydney); !p.Match("a", "") || !p.Match("b", "") || p.Match("d", "") {
		t.Error("the part of a destination with two names")
	}
}
