package ecr

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func TestFixed(t *testing.T) {
	reply := func(mutability string, filters ...string) answer {
		var fs []any
		for _, f := range filters {
			fs = append(fs, fields{"filter": f, "filterType": "WILDCARD"})
		}
		return ok(fields{"repositories": []any{fields{"repositoryName": "team/app", "imageTagMutability": mutability,
			"imageTagMutabilityExclusionFilters": fs}}})
	}
	for name, test := range map[string]struct {
		answer answer
		want   map[string]bool
	}{
		"mutable":              {reply("MUTABLE"), map[string]bool{"v1": false}},
		"immutable":            {reply("IMMUTABLE"), map[string]bool{"v1": true}},
		"immutable, but":       {reply("IMMUTABLE_WITH_EXCLUSION", "latest", "dev.*"), map[string]bool{"v1": true, "latest": false, "latest2": true, "dev.1": false, "dev1": true}},
		"mutable, but":         {reply("MUTABLE_WITH_EXCLUSION", "v*"), map[string]bool{"v1": true, "latest": false, "pre-v1": false}},
		"what is not known is": {reply("SOMETHING_NEW"), map[string]bool{"v1": false}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t, step{describeRepos, test.answer, nil})
			fixed, err := c.registry().Fixed(t.Context(), "team/app")
			if err != nil {
				t.Fatal(err)
			}
			for tag, want := range test.want {
				if got := fixed(tag); got != want {
					t.Errorf("%s: got %v, want %v", tag, got, want)
				}
			}
		})
	}
	c := newControl(t, step{describeRepos, exc("RepositoryNotFoundException"), nil}, step{describeRepos, ok(fields{}), nil})
	_, err := c.registry().Fixed(t.Context(), "team/app")
	wantClass(t, err, registry.NotFound, registry.CodeNameUnknown)
	_, err = c.registry().Fixed(t.Context(), "team/app")
	wantClass(t, err, registry.Unavailable, "")
}
