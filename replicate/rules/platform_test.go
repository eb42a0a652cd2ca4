package rules_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

func TestPlatforms(t *testing.T) {
	p := mustNew(t, []rules.Rule{
		{Repositories: []string{"app"}, Platforms: []string{"linux/aarch64", "linux/arm/7"}},
		{Repositories: []string{"app"}, Tags: []string{"v*"}, Platforms: []string{"linux/amd64", "linux/arm64/v8"}},
		{Repositories: []string{"app"}, Tags: []string{"latest"}},
		{Repositories: []string{"all"}},
	}).At(own)
	for _, tt := range []struct{ repo, tag, want string }{
		{"app", "dev", "linux/arm/v7,linux/arm64"},
		{"app", "v1", "linux/amd64,linux/arm/v7,linux/arm64"},
		{"app", "latest", ""}, {"all", "v1", ""}, {"other", "v1", ""},
	} {
		if got := p.Platforms(tt.repo, tt.tag).String(); got != tt.want {
			t.Errorf("platforms of %s:%s are %q, want %q", tt.repo, tt.tag, got, tt.want)
		}
	}
	if p.Match("app", "") || !p.Match("app", "dev") || !p.Match("all", "") {
		t.Error("a rule with platforms wants images by their tags alone")
	}
	dev := p.Platforms("app", "dev")
	for text, want := range map[string]bool{
		"linux/arm64": true, "linux/arm64/v8": true, "linux/aarch64": true, "linux/arm/v7": true, "linux/arm": true, "linux/armhf": true,
		"linux/arm/v6": false, "linux/amd64": false, "windows/arm64": false, "unknown/unknown": true, "/": true,
	} {
		f := append(strings.Split(text, "/"), "")
		if got := dev.Keep(&ocispec.Platform{OS: f[0], Architecture: f[1], Variant: f[2]}); got != want {
			t.Errorf("keep %s: %v, want %v", text, got, want)
		}
	}
	if !dev.Keep(nil) || !rules.Platforms(nil).Keep(&ocispec.Platform{OS: "plan9", Architecture: "mips"}) {
		t.Error("what says no platform is kept, and all are when none is chosen")
	}
}

func TestSubject(t *testing.T) {
	d := digest.FromString("x")
	for _, tag := range rules.Companions(d) {
		if got, ok := rules.Subject(tag); !ok || got != d {
			t.Errorf("%s is about %s (%v)", tag, got, ok)
		}
	}
	hex := d.Encoded()
	for _, tag := range []string{"", "v1", "sha256-" + hex + ".", "sha256-" + hex + ".key", "sha256-" + hex + ".sig.sig", "sha256-" + hex[1:], "md5-" + hex, "sha256:" + hex, "sha256-" + hex + "-sig"} {
		if got, ok := rules.Subject(tag); ok {
			t.Errorf("%q is about %s", tag, got)
		}
	}
}

func TestFollows(t *testing.T) {
	sig := rules.Companions(digest.FromString("x"))[1]
	p := mustNew(t, []rules.Rule{{Repositories: []string{"app"}, Tags: []string{"v*"}}, {Repositories: []string{"all"}}, {Repositories: []string{"one"}, Platforms: []string{"linux/amd64"}}}).At(own)
	for _, tt := range []struct {
		repo, tag      string
		wants, follows bool
	}{
		{"app", "v1", true, false}, {"app", "dev", false, false}, {"app", "", false, true}, {"app", sig, false, true},
		{"all", "", true, false}, {"all", sig, true, false}, {"other", "", false, false}, {"other", sig, false, false},
		{"one", "", false, true}, {"one", "v1", true, false},
	} {
		if w, f := p.Match(tt.repo, tt.tag), p.Follows(tt.repo, tt.tag); w != tt.wants || f != tt.follows {
			t.Errorf("%s:%s: wanted %v, follows %v", tt.repo, tt.tag, w, f)
		}
	}
}
