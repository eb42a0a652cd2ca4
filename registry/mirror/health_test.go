package mirror_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// What calls meet is what Health says, since when, and what the last said; a minute later nothing is known.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHalf(t, nil)
		states := func() string {
			var s []string
			for _, u := range h.Health() {
				s = append(s, u.Name+" "+u.State)
			}
			return strings.Join(s, ", ")
		}
		want := func(what, want string) {
			t.Helper()
			if got := states(); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
		want("nothing was asked", "source unknown, destination unknown")
		h.source.Before = down
		began := time.Now()
		for _, tag := range []string{"v1", "v2", "v3"} {
			_, _ = h.Resolve(t.Context(), repo, tag)
			time.Sleep(time.Second)
		}
		want("three failures of the source", "source left alone, destination up")
		if u := h.Health()[0]; !u.Since.Equal(began) || !strings.Contains(u.Err, "down") || !u.AnsweredAt.IsZero() {
			t.Errorf("the source: %+v, down since %v", u, began)
		}
		time.Sleep(5 * time.Second)
		want("when it may be tried again", "source down, destination up")
		h.source.Before = nil
		_, _ = h.Resolve(t.Context(), repo, "v4")
		want("it answers that there is none", "source up, destination up")
		if u := h.Health()[0]; !u.Since.IsZero() || u.Err != "" || u.AnsweredAt.IsZero() {
			t.Errorf("the source: %+v", u)
		}
		time.Sleep(time.Minute)
		want("a minute later", "source unknown, destination unknown")
	})
}
