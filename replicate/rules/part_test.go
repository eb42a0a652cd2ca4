package rules_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

func TestMatchRepo(t *testing.T) {
	s, err := rules.New([]rules.Rule{{Repositories: []string{"team/*"}, Exclude: []string{"team/tmp"}, Tags: []string{"v*"}}, {Repositories: []string{"base"}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for repo, want := range map[string]bool{"team/app": true, "team/tmp": false, "base": true, "other": false} {
		if got := s.At(own).MatchRepo(repo); got != want {
			t.Errorf("%s: got %v", repo, got)
		}
	}
	var everything *rules.Set
	if !everything.At(own).MatchRepo("other") || rules.Join().At(own).MatchRepo("other") {
		t.Error("no rules want everything, an empty list of explicit ones nothing")
	}
}

func TestNames(t *testing.T) {
	for _, tc := range []struct {
		rules []rules.Rule
		want  []string
	}{
		{nil, []string{"*"}},
		{[]rules.Rule{{Repositories: []string{"team/**", "base-*", "one"}}}, []string{"base-*", "one", "team/*"}},
		{[]rules.Rule{{Repositories: []string{"team/**"}}, {Tags: []string{"v*"}}}, []string{"*"}},
		{[]rules.Rule{{Repositories: []string{"team/**"}, Rename: &rules.Rename{To: "eu/"}}}, []string{"eu/team/*"}},
		{[]rules.Rule{{Repositories: []string{"team/a-*", "other"}, Rename: &rules.Rename{From: "team/", To: "t/"}}}, []string{"other", "t/a-*"}},
		{[]rules.Rule{{Repositories: []string{"te**"}, Rename: &rules.Rename{From: "team/", To: "t/"}}}, []string{"t/*", "te*"}},
	} {
		s, err := rules.New(tc.rules, nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, s.At(rules.Destination{}).Names()); d != "" {
			t.Errorf("%+v: %s", tc.rules, d)
		}
	}
}
