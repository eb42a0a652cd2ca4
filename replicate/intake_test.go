package replicate_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func TestIntake(t *testing.T) {
	at := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name string
		c    registry.Change
		want replicate.Job
		ok   bool
	}{
		{"tag", registry.Change{Repo: "app", Tag: "v1", Digest: d1, At: at}, tagJob("app", "v1", d1, at), true},
		{"tag alone", registry.Change{Repo: "app", Tag: "v1", At: at}, tagJob("app", "v1", "", at), true},
		{"digest", registry.Change{Repo: "team/app", Digest: d1}, contentJob("team/app", d1), true},
		{"delete", registry.Change{Repo: "app", Tag: "v1", Digest: d1, Op: registry.Delete}, replicate.Job{}, false},
		{"nothing", registry.Change{Repo: "app"}, replicate.Job{}, false},
		{"repository", registry.Change{Repo: "../../v2", Tag: "v1"}, replicate.Job{}, false},
		{"bad tag", registry.Change{Repo: "app", Tag: "a b"}, replicate.Job{}, false},
		{"bad digest", registry.Change{Repo: "app", Tag: "v1", Digest: "sha256:1"}, replicate.Job{}, false},
	} {
		got, ok := replicate.FromChange("m", "d", c.c)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != c.ok {
			t.Errorf("%s: %v (-want +got):\n%s", c.name, ok, diff)
		}
	}
	j, ok := replicate.FromMiss("m", "d", "app", "v1", d1, at)
	if diff := cmp.Diff(tagJob("app", "v1", d1, at), j); diff != "" || !ok {
		t.Errorf("miss: %v (-want +got):\n%s", ok, diff)
	}
	if _, ok := replicate.FromMiss("", "d", "app", "v1", d1, at); ok {
		t.Error("a miss without a mirror became a job")
	}
}

func TestErrGoneIsNotFound(t *testing.T) {
	p := newPlaces()
	var c replicate.Copier
	_, err := c.Tag(t.Context(), p.image("app"), "v1")
	if !errors.Is(err, replicate.ErrGone) || !errors.Is(err, registry.NotFound) {
		t.Errorf("got %v", err)
	}
}
