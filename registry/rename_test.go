package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestRename(t *testing.T) {
	f := registrytest.NewFaulty(mem.New())
	image := registrytest.Image(1, 10)
	registrytest.Push(t, f, "up/app", "v1", image)
	f.Forget()
	r := registry.Rename(f, func(repo string) string { return "up/" + repo })
	o := image.Objects("app")[1]
	_, err1 := r.Resolve(t.Context(), "app", "v1")
	_, err2 := r.Stat(t.Context(), o)
	c, err3 := r.Open(t.Context(), o, registry.Whole)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	_, err := c.From.Open(t.Context(), o, registry.Range{Offset: 2, Length: 3})
	if err != nil {
		t.Errorf("open from: %v", err)
	}
	hex := o.Digest.Encoded()[:6]
	want := []string{"resolve up/app:v1", "stat blob up/app@" + hex, "open blob up/app@" + hex, "open blob up/app@" + hex + " 2+3"}
	if diff := cmp.Diff(want, registrytest.Short(f.Calls())); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	gone := func(string) string { return "" }
	f.Forget()
	r = registry.Rename(f, gone)
	_, err1 = r.Resolve(t.Context(), "app", "v1")
	_, err2 = r.Stat(t.Context(), o)
	_, err3 = r.Open(t.Context(), o, registry.Whole)
	var err4, err5 error
	for _, err := range registry.RenameLister(f, gone).Tags(t.Context(), "app") {
		err4 = err
	}
	for _, err := range registry.RenameLister(f, gone).Referrers(t.Context(), "app", o.Digest, "") {
		err5 = err
	}
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if !errors.Is(err, registry.NotFound) || registry.CodeOf(err) != registry.CodeNameUnknown {
			t.Errorf("a repository without a name there: %v", err)
		}
	}
	if n := f.Count(); n != 0 {
		t.Errorf("%d calls for a repository without a name there", n)
	}
}

func TestRenameLister(t *testing.T) {
	m := mem.New()
	image := registrytest.Image(1, 10)
	registrytest.Push(t, m, "up/app", "v1", image)
	l := registry.RenameLister(m, func(repo string) string { return "up/" + repo })
	var tags []string
	for tag, err := range l.Tags(t.Context(), "app") {
		if err != nil {
			t.Fatal(err)
		}
		tags = append(tags, tag)
	}
	if diff := cmp.Diff([]string{"v1"}, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	for _, err := range l.Referrers(t.Context(), "app", image.Desc.Digest, "") {
		t.Errorf("referrers: %v", err)
	}
}

// located is a Locator that tells what it was asked for.
type located struct{}

func (located) Locate(_ context.Context, o registry.Object) (string, time.Time, error) {
	return "https://layers.example/" + o.Repo, time.Time{}, nil
}

func TestRenameLocator(t *testing.T) {
	l := registry.RenameLocator(located{}, func(repo string) string { return map[string]string{"app": "up/app"}[repo] })
	o := registrytest.Image(1, 10).Objects("app")[0]
	if url, _, err := l.Locate(t.Context(), o); url != "https://layers.example/up/app" || err != nil {
		t.Errorf("%s, %v", url, err)
	}
	o.Repo = "other"
	if url, _, err := l.Locate(t.Context(), o); url != "" || registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("%s, %v", url, err)
	}
}
