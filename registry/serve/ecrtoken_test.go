package serve

import (
	"strconv"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// However many tokens and repositories are seen, so many answers are remembered, and the last ones.
func TestAnswersAreBounded(t *testing.T) {
	a, now := newAnswers(), time.Now()
	key := func(kind string, i int) answerKey { return a.of("token", "host", kind, strconv.Itoa(i)) }
	for i := range maxAnswers + 1 {
		a.allow(key("yes", i), "token", now)
		a.deny(key("no", i), registry.Denied, now)
	}
	for _, kind := range []string{"yes", "no"} {
		for i, want := range map[int]bool{0: false, 1: true, maxAnswers: true} {
			if _, known := a.recent(key(kind, i), now); known != want {
				t.Errorf("%s %d: known %v, want %v", kind, i, known, want)
			}
		}
	}
	if a.yes.Len() != maxAnswers || a.no.Len() != maxAnswers {
		t.Errorf("%d and %d answers, want %d", a.yes.Len(), a.no.Len(), maxAnswers)
	}
}
