package rules

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Bounds on a pattern, so that no configuration makes matching a name expensive: Go's regular expressions take time in
// proportion to the name and to their program.
const (
	maxPattern = 512  // bytes
	maxProgram = 5000 // instructions
)

// pattern matches whole names.
type pattern struct {
	match func(name string) bool
	// stem begins every name that matches. It ends with end if nothing but the stem matches.
	stem string
}

// end is in no name: it makes the stem of one name no stem of a longer one.
const end = "\x00"

// The characters of repository names and tags (OCI distribution specification, "Pulling manifests"), and wildcards.
var (
	repoGlob = regexp.MustCompile(`^[a-z0-9._/*?-]+$`)
	tagGlob  = regexp.MustCompile(`^[a-zA-Z0-9._*?-]+$`)
)

// repoPattern reads a glob or /regex/ of repositories: no name begins with a slash.
func repoPattern(text string) (pattern, error) { return compile(text, repoGlob) }

// tagPattern reads a glob, a /regex/ or semver:RANGE of tags: no tag has a slash or a colon.
func tagPattern(text string) (pattern, error) {
	if r, ok := strings.CutPrefix(text, "semver:"); ok {
		return versions(r)
	}
	return compile(text, tagGlob)
}

func compile(text string, glob *regexp.Regexp) (pattern, error) {
	if len(text) > maxPattern {
		return pattern{}, fmt.Errorf("pattern of %d bytes, more than %d", len(text), maxPattern)
	}
	if len(text) > 2 && text[0] == '/' && text[len(text)-1] == '/' {
		return expression(text[1 : len(text)-1])
	}
	if !glob.MatchString(text) {
		return pattern{}, fmt.Errorf("pattern %q: empty or with a character that no name has", text)
	}
	i := strings.IndexAny(text, "*?")
	if i < 0 {
		return pattern{func(name string) bool { return name == text }, text + end}, nil
	}
	r := strings.NewReplacer(`**`, `.*`, `*`, `[^/]*`, `?`, `[^/]`, `.`, `\.`)
	return pattern{anchored(r.Replace(text)).MatchString, text[:i]}, nil
}

func anchored(expr string) *regexp.Regexp { return regexp.MustCompile(`\A(?:` + expr + `)\z`) }

func expression(expr string) (pattern, error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		var e *syntax.Error
		errors.As(err, &e) // all that Parse returns
		return pattern{}, fmt.Errorf("pattern /%s/: %v", expr, e.Code)
	}
	prog, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(prog.Inst) > maxProgram {
		return pattern{}, fmt.Errorf("pattern /%s/: too large", expr)
	}
	stem, whole := regexp.MustCompile(expr).LiteralPrefix()
	if whole {
		stem += end
	}
	return pattern{anchored(expr).MatchString, stem}, nil
}

// versions matches tags that are semantic versions in a range, as Masterminds/semver writes ranges. A version has three
// numbers and perhaps a v before them, so that 1.2, a date or a commit is none; Helm writes its + as _. Prereleases are in
// a range only if the range names one.
func versions(text string) (pattern, error) {
	if len(text) > maxPattern {
		return pattern{}, fmt.Errorf("range of %d bytes, more than %d", len(text), maxPattern)
	}
	c, err := semver.NewConstraint(strings.TrimSpace(text))
	if err != nil {
		return pattern{}, fmt.Errorf("%q is not a range of semantic versions", text)
	}
	return pattern{match: func(tag string) bool {
		v, err := semver.StrictNewVersion(strings.Replace(strings.TrimPrefix(tag, "v"), "_", "+", 1))
		return err == nil && c.Check(v)
	}}, nil
}

// patterns is any of its patterns.
type patterns []pattern

func (ps patterns) match(name string) bool {
	return slices.ContainsFunc(ps, func(p pattern) bool { return p.match(name) })
}
