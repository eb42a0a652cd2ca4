package rules_test

import (
	"testing"

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
