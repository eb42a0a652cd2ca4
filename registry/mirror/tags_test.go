package mirror_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
)

// Whoever asks for any number of tags that do not exist takes the freshness of no tag that does, and no more memory than his own.
func TestAbsentTagsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const known, absent = 1 << 16, 1 << 14 // remembered of each
		source := &upstream{say: says(atSource)}
		m := mirror.New(mirror.Options{Objects: mem.New(), Source: source, TTL: time.Hour, NegativeTTL: time.Hour})
		resolve(t, m, "team/app", "v1")
		source.set(fails(registry.NotFound))
		for i := range known + 1 {
			if _, err := m.Resolve(t.Context(), "team/app", fmt.Sprint("no", i)); registry.ClassOf(err) != registry.NotFound {
				t.Fatal(err)
			}
		}
		asked := source.count()
		if got := resolve(t, m, "team/app", "v1"); got.Tier != "local" || source.count() != asked {
			t.Errorf("the tag that exists: %+v after %d calls", got, source.count()-asked)
		}
		if resolve(t, m, "team/app", fmt.Sprint("no", known+1-absent)); source.count() != asked {
			t.Error("a tag that was absent of late was asked for again")
		}
		if resolve(t, m, "team/app", fmt.Sprint("no", known-absent)); source.count() != asked+1 {
			t.Error("the absence of more tags is remembered than is said")
		}
		m.Invalidate("team/app", "")
		if resolve(t, m, "team/app", fmt.Sprint("no", known)); source.count() != asked+2 {
			t.Error("an absence outlived an event of the repository")
		}
	})
}
