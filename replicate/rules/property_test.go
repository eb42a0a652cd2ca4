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

func mustNew(t interface{ Fatal(...any) }, rs []rules.Rule) *rules.Set {
	s, err := rules.New(rs, nil)
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
		s := mustNew(t, rs).At(own)
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
		a := mustNew(t, []rules.Rule{{Repositories: []string{glob}}}).At(own)
		b := mustNew(t, []rules.Rule{{Repositories: []string{"/" + r + "/"}}}).At(own)
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
		want := a.At(own).Match(repo, tag) || b.At(own).Match(repo, tag)
		for _, s := range []*rules.Set{rules.Join(a, b), rules.Join(b, a), rules.Join(a, b, a)} {
			if s.At(own).Match(repo, tag) != want {
				t.Fatalf("join: %v, want %v", !want, want)
			}
		}
		if !rules.Join(a, nil).At(own).Match(repo, tag) {
			t.Fatal("joined with everything: not everything")
		}
	})
}

// Whatever the rules: what is wanted has a name at the destination that leads back to it, so no two meet there; and there is
// no name that leads to a repository which goes elsewhere.
func TestNamesAreOneToOne(t *testing.T) {
	genPath := rapid.SampledFrom([]string{"", "a/", "b/", "a/b/", "a/a/"})
	genRenaming := rapid.Custom(func(t *rapid.T) rules.Rule {
		r := genRule.Draw(t, "rule")
		if n := (rules.Rename{From: genPath.Draw(t, "from"), To: genPath.Draw(t, "to")}); n != (rules.Rename{}) {
			r.Rename = &n
		}
		return r
	})
	rapid.Check(t, func(t *rapid.T) {
		p := mustNew(t, rapid.SliceOfN(genRenaming, 1, 4).Draw(t, "rules")).At(own)
		owners := make(map[string]string) // of names at the destination
		for range 20 {
			repo := genRepo.Draw(t, "repo")
			there := p.There(repo)
			if there == "" {
				if p.MatchRepo(repo) || p.Match(repo, "a") {
					t.Fatalf("%q is wanted and has no name there", repo)
				}
				continue
			}
			if p.Here(there) != repo {
				t.Fatalf("%q is %q there, which is %q here", repo, there, p.Here(there))
			}
			if o, ok := owners[there]; ok && o != repo {
				t.Fatalf("%q and %q are both %q there", o, repo, there)
			}
			owners[there] = repo
			if here := p.Here(repo); here != "" && p.There(here) != repo { // repo as a name there
				t.Fatalf("%q there is %q here, which is %q there", repo, here, p.There(here))
			}
		}
	})
}
