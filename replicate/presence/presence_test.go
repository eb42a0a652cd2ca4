package presence_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate/presence"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// broken is a registry that cannot be asked.
type broken struct{ *mem.Registry }

var errDown = registry.Errorf(registry.Unavailable, "down")

func (broken) Resolve(context.Context, string, string) (registry.Descriptor, error) {
	return registry.Descriptor{}, errDown
}

func (broken) Open(context.Context, registry.Object, registry.Range) (*registry.Content, error) {
	return nil, errDown
}

func (broken) Missing(context.Context, string, []registry.Object) ([]registry.Object, error) {
	return nil, errDown
}

func short(r presence.Report) string {
	s := fmt.Sprint(r.State)
	for _, parts := range [][]presence.Part{r.Platforms, r.Referrers, r.Tags} {
		s += ";"
		for _, p := range parts {
			if p.Present {
				s += " " + p.Name
			} else {
				s += " -" + p.Name
			}
		}
	}
	return s
}

func TestCheck(t *testing.T) {
	one, two := registrytest.Image(1, 100), registrytest.Image(2, 100)
	index := registrytest.Index(one, two)
	other := registrytest.Image(3, 100)
	signature := registrytest.Referrer(index.Desc, "application/signature", []byte("ok"))
	cosign := "sha256-" + one.Desc.Digest.Encoded() + ".sig"
	type setup func(t *testing.T, src, dst *mem.Registry)
	push := func(r *mem.Registry, t *testing.T, tag string, n registrytest.Node) {
		registrytest.Push(t, r, "app", tag, n)
	}
	for name, test := range map[string]struct {
		setup setup
		want  string
	}{
		"nothing anywhere":       {nil, "gone;;;"},
		"only there, not source": {func(t *testing.T, _, dst *mem.Registry) { push(dst, t, "v1", one) }, "gone;;;"},
		"missing":                {func(t *testing.T, src, _ *mem.Registry) { push(src, t, "v1", index) }, "absent; -linux/amd64 -linux/arm64;;"},
		"complete": {func(t *testing.T, src, dst *mem.Registry) { push(src, t, "v1", index); push(dst, t, "v1", index) },
			"ready; linux/amd64 linux/arm64;;"},
		"one platform so far": {func(t *testing.T, src, dst *mem.Registry) { push(src, t, "v1", index); push(dst, t, "", two) },
			"behind; -linux/amd64 linux/arm64;;"},
		"tag missing": {func(t *testing.T, src, dst *mem.Registry) { push(src, t, "v1", one); push(dst, t, "", one) }, "behind;;;"},
		"another image": {func(t *testing.T, src, dst *mem.Registry) { push(src, t, "v1", one); push(dst, t, "v1", other) },
			"behind;;;"},
		"referrer missing": {func(t *testing.T, src, dst *mem.Registry) {
			push(src, t, "v1", index)
			push(src, t, "", signature)
			push(dst, t, "v1", index)
		}, "incomplete; linux/amd64 linux/arm64; -application/signature;"},
		"referrer there": {func(t *testing.T, src, dst *mem.Registry) {
			for _, r := range []*mem.Registry{src, dst} {
				push(r, t, "v1", one)
				push(r, t, "", registrytest.Referrer(one.Desc, "application/signature", []byte("ok")))
			}
		}, "ready;; application/signature;"},
		"signature of a platform missing": {func(t *testing.T, src, dst *mem.Registry) {
			for _, r := range []*mem.Registry{src, dst} {
				push(r, t, "v1", index)
			}
			push(src, t, "", registrytest.Referrer(two.Desc, "application/signature", []byte("ok")))
		}, "incomplete; linux/amd64 linux/arm64; -application/signature;"},
		"cosign's tag missing": {func(t *testing.T, src, dst *mem.Registry) {
			push(src, t, "v1", one)
			push(dst, t, "v1", one)
			push(src, t, cosign, other)
		}, "incomplete;;; -" + cosign},
		"cosign's tag there": {func(t *testing.T, src, dst *mem.Registry) {
			for _, r := range []*mem.Registry{src, dst} {
				push(r, t, "v1", one)
				push(r, t, cosign, other)
			}
		}, "ready;;; " + cosign},
	} {
		t.Run(name, func(t *testing.T) {
			src, dst := mem.New(), mem.New()
			if test.setup != nil {
				test.setup(t, src, dst)
			}
			c := presence.Check{Source: src, Destination: dst}
			r := c.Tag(t.Context(), "app", "v1")
			if d := cmp.Diff(test.want, short(r)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if r.Err != nil || (r.State == presence.Ready) != (!r.PullableAt.IsZero() && r.Have == r.Digest && r.PushedAt.Before(r.PullableAt)) && r.State != presence.Incomplete {
				t.Errorf("%+v", r)
			}
		})
	}
}

func TestContent(t *testing.T) {
	src, dst := mem.New(), mem.New()
	n := registrytest.Image(1, 100)
	c := presence.Check{Source: src, Destination: dst, Repo: func(repo string) string { return "copy/" + repo }}
	content := func() presence.State { return c.Content(t.Context(), "app", n.Desc.Digest).State }
	if got := content(); got != presence.Gone {
		t.Errorf("nowhere: %v", got)
	}
	registrytest.Push(t, src, "app", "", n)
	if got := content(); got != presence.Absent {
		t.Errorf("at the source: %v", got)
	}
	registrytest.Push(t, dst, "copy/app", "", n)
	if got := content(); got != presence.Ready {
		t.Errorf("at the destination, by its name there: %v", got)
	}
}

// Where rules choose platforms, the index and its tag are not expected at the destination.
func TestChosenPlatforms(t *testing.T) {
	one, two := registrytest.Image(1, 100), registrytest.Image(2, 100)
	index := registrytest.Index(one, two)
	src, dst := mem.New(), mem.New()
	registrytest.Push(t, src, "app", "v1", index)
	registrytest.Push(t, src, "app", "", registrytest.Referrer(index.Desc, "application/signature", []byte("ok")))
	c := presence.Check{Source: src, Destination: dst, Platforms: rules.Platforms{{OS: "linux", Architecture: "arm64"}}}
	state := func() string { return short(c.Tag(t.Context(), "app", "v1")) }
	if got := state(); got != "absent; -linux/arm64;;" {
		t.Errorf("nothing there: %s", got)
	}
	registrytest.Push(t, dst, "app", "", one)
	if got := state(); got != "absent; -linux/arm64;;" {
		t.Errorf("the other platform is there: %s", got)
	}
	registrytest.Push(t, dst, "app", "", two)
	if got := state(); got != "partial; linux/arm64;;" {
		t.Errorf("the chosen platform is there: %s", got)
	}
	registrytest.Push(t, dst, "app", "v1", index) // somebody else's copy
	if got := state(); got != "ready; linux/arm64;;" {
		t.Errorf("all is there: %s", got)
	}
}

// Who cannot be asked is not taken for one that has nothing.
func TestUnknown(t *testing.T) {
	n := registrytest.Image(1, 100)
	src, dst := mem.New(), mem.New()
	registrytest.Push(t, src, "app", "v1", n)
	registrytest.Push(t, dst, "app", "v1", n)
	for name, c := range map[string]presence.Check{
		"source": {Source: broken{src}, Destination: dst}, "destination": {Source: src, Destination: broken{dst}},
	} {
		r := c.Tag(t.Context(), "app", "v1")
		if r.State != presence.Unknown || registry.ClassOf(r.Err) != registry.Unavailable {
			t.Errorf("%s down: %+v", name, r)
		}
		if name == "source" && r.Have != n.Desc.Digest {
			t.Errorf("the destination's tag: %v", r.Have)
		}
	}
	if r := (&presence.Check{Source: mem.New(), Destination: broken{dst}}).Content(t.Context(), "app", n.Desc.Digest); r.State != presence.Unknown {
		t.Errorf("gone from the source, destination down: %+v", r)
	}
}
