package rules_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// matches is what the documentation says of globs, said again in another way.
func matches(glob, name string) bool {
	switch {
	case glob == "":
		return name == ""
	case strings.HasPrefix(glob, "**"):
		return matches(glob[2:], name) || name != "" && matches(glob, name[1:])
	case glob[0] == '*':
		return matches(glob[1:], name) || name != "" && name[0] != '/' && matches(glob, name[1:])
	case name == "":
		return false
	case glob[0] == '?':
		return name[0] != '/' && matches(glob[1:], name[1:])
	}
	return glob[0] == name[0] && matches(glob[1:], name[1:])
}

func anyMatches(globs []string, name string) bool {
	for _, g := range globs {
		if matches(g, name) {
			return true
		}
	}
	return false
}

// Over a small alphabet, so that patterns and names meet.
var (
	genRepo  = rapid.StringMatching(`[ab.]{1,2}(/[ab.]{1,2}){0,2}`)
	genGlob  = rapid.StringMatching(`([ab./?]|\*{1,2}){1,5}`).Filter(func(s string) bool { return !isRegexp(s) })
	genGlobs = rapid.SliceOfN(genGlob, 0, 3)
	genTag   = rapid.StringMatching(`[ab.]{0,3}`)
	genTags  = rapid.SliceOfN(rapid.StringMatching(`[ab.?*]{1,4}`), 0, 2)
	genRule  = rapid.Custom(func(t *rapid.T) rules.Rule {
		return rules.Rule{Repositories: genGlobs.Draw(t, "repositories"), Exclude: genGlobs.Draw(t, "exclude"),
			Tags: genTags.Draw(t, "tags"), ExcludeTags: genTags.Draw(t, "excludeTags")}
	})
	genRules = rapid.SliceOfN(genRule, 1, 4)
)

func isRegexp(s string) bool { return len(s) > 2 && s[0] == '/' && s[len(s)-1] == '/' }

func mustNew(t *rapid.T, rs []rules.Rule) *rules.Set {
	s, err := rules.New(rs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRulesAreTheUnionOfWhatTheySay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, repo, tag := genRules.Draw(t, "rules"), genRepo.Draw(t, "repo"), genTag.Draw(t, "tag")
		want, wantRepo := false, false
		for _, r := range rs {
			inRepo := (len(r.Repositories) == 0 || anyMatches(r.Repositories, repo)) && !anyMatches(r.Exclude, repo)
			inTag := len(r.Tags) == 0
			if tag != "" {
				inTag = (inTag || anyMatches(r.Tags, tag)) && !anyMatches(r.ExcludeTags, tag)
			}
			want, wantRepo = want || inRepo && inTag, wantRepo || inRepo
		}
		s := mustNew(t, rs)
		if got := s.Match(repo, tag); got != want {
			t.Fatalf("match %q %q: %v, want %v", repo, tag, got, want)
		}
		if got := s.MatchRepo(repo); got != wantRepo {
			t.Fatalf("match repository %q: %v, want %v", repo, got, wantRepo)
		}
	})
}

// A glob and its translation into a regular expression are the same pattern.
func TestRegexpSaysWhatItsGlobSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		glob, repo := genGlob.Draw(t, "glob"), genRepo.Draw(t, "repo")
		r := strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`, `\?`, `[^/]`).Replace(regexp.QuoteMeta(glob))
		a := mustNew(t, []rules.Rule{{Repositories: []string{glob}}})
		b := mustNew(t, []rules.Rule{{Repositories: []string{"/" + r + "/"}}})
		if a.Match(repo, "") != b.Match(repo, "") {
			t.Fatalf("%q and /%s/ disagree about %q", glob, r, repo)
		}
	})
}

// Order and repetition of sets do not matter, and everything absorbs the rest.
func TestJoinIsUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := mustNew(t, genRules.Draw(t, "a")), mustNew(t, genRules.Draw(t, "b"))
		repo, tag := genRepo.Draw(t, "repo"), genTag.Draw(t, "tag")
		want := a.Match(repo, tag) || b.Match(repo, tag)
		for _, s := range []*rules.Set{rules.Join(a, b), rules.Join(b, a), rules.Join(a, b, a)} {
			if s.Match(repo, tag) != want {
				t.Fatalf("join: %v, want %v", !want, want)
			}
		}
		if !rules.Join(a, nil).Match(repo, tag) {
			t.Fatal("joined with everything: not everything")
		}
	})
}
