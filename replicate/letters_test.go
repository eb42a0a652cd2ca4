package replicate_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

func letters(t *testing.T, q *replicate.Queue) (all []replicate.Letter) {
	t.Helper()
	for l, err := range q.Letters(t.Context()) {
		must(t, err)
		all = append(all, l)
	}
	return all
}

func TestLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "queue.db")
		q := openQueue(t, path)
		first := time.Now().UTC()
		must(t, q.PutLetter(t.Context(), "m", []byte("{"), errors.New("malformed")))
		must(t, q.PutLetter(t.Context(), "other", []byte("{"), errors.New(strings.Repeat("ä", 1000))))
		big := bytes.Repeat([]byte("x"), replicate.MaxLetterBody+1)
		must(t, q.PutLetter(t.Context(), "m", big, errors.New("large")))
		time.Sleep(time.Hour)
		must(t, q.PutLetter(t.Context(), "m", []byte("{"), errors.New("malformed")))
		must(t, q.Close())
		q = openQueue(t, path)
		want := []replicate.Letter{
			{Mirror: "m", Reason: "malformed", First: first, Last: first.Add(time.Hour), Times: 2, Size: 1, Body: []byte("{")},
			{Mirror: "other", Reason: strings.Repeat("ä", 512), First: first, Last: first, Times: 1, Size: 1, Body: []byte("{")},
			{Mirror: "m", Reason: "large", First: first, Last: first, Times: 1, Size: len(big), Body: big[:replicate.MaxLetterBody]},
		}
		got := letters(t, q)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(replicate.Letter{}, "ID"), cmp.Comparer(bytes.Equal)); diff != "" {
			t.Fatalf("letters (-want +got):\n%s", diff)
		}
		one, err := q.Letter(t.Context(), got[1].ID)
		must(t, err)
		if diff := cmp.Diff(got[1], one); diff != "" {
			t.Errorf("one letter (-listed +alone):\n%s", diff)
		}
		must(t, q.ForgetLetter(t.Context(), got[0].ID))
		if _, err := q.Letter(t.Context(), got[0].ID); registry.ClassOf(err) != registry.NotFound {
			t.Errorf("a forgotten letter: %v", err)
		}
		if err := q.ForgetLetter(t.Context(), got[0].ID); registry.ClassOf(err) != registry.NotFound {
			t.Errorf("forget twice: %v", err)
		}
		if left := letters(t, q); len(left) != 2 || left[0].ID != got[1].ID {
			t.Errorf("left: %+v", left)
		}
		must(t, q.PutLetter(t.Context(), "m", []byte("{"), errors.New("malformed")))
		if left := letters(t, q); len(left) != 3 || left[2].ID != got[0].ID || left[2].Times != 1 {
			t.Errorf("after it came again: %+v", left)
		}
	})
}

// A storm of nonsense neither fills the disk nor goes uncounted.
func TestLettersAreBounded(t *testing.T) {
	q := newQueue(t)
	const more = 5
	done := make(chan error, replicate.MaxLetters+more)
	for i := range replicate.MaxLetters + more {
		if i < more { // these must be the oldest
			done <- q.PutLetter(t.Context(), "m", fmt.Appendf(nil, "old %d", i), registry.Invalid)
			continue
		}
		go func() { done <- q.PutLetter(t.Context(), "m", fmt.Append(nil, i), registry.Invalid) }()
	}
	for range replicate.MaxLetters + more {
		must(t, <-done)
	}
	c, err := q.LetterCounts()
	if want := (replicate.LetterCounts{Kept: replicate.MaxLetters, Dropped: more}); err != nil || c != want {
		t.Errorf("counts: %+v, %v, want %+v", c, err, want)
	}
	all := letters(t, q)
	for _, l := range all {
		if bytes.HasPrefix(l.Body, []byte("old")) {
			t.Errorf("%s was not dropped", l.Body)
		}
	}
	if len(all) != replicate.MaxLetters {
		t.Errorf("%d letters", len(all))
	}
	must(t, q.Close())
	if err := q.PutLetter(t.Context(), "m", nil, registry.Invalid); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("put to a closed queue: %v", err)
	}
}

// Nor do few large ones.
func TestLettersOfManyBytesAreBounded(t *testing.T) {
	q := newQueue(t)
	q.MaxLetterBytes = 100_000
	must(t, q.PutLetter(t.Context(), "m", []byte("small"), registry.Invalid))
	for i := range byte(12) {
		must(t, q.PutLetter(t.Context(), "m", bytes.Repeat([]byte{i}, 9000), registry.Invalid)) // 12,000 and what is beside it
	}
	all := letters(t, q)
	if len(all) != 8 || all[0].Body[0] != 4 {
		t.Errorf("%d letters, the first of %d bytes", len(all), all[0].Size)
	}
	c, err := q.LetterCounts()
	if want := (replicate.LetterCounts{Kept: 8, Dropped: 5}); err != nil || c != want {
		t.Errorf("counts: %+v, %v, want %+v", c, err, want)
	}
	whole := bytes.Repeat([]byte("x"), replicate.MaxLetterBody) // one is kept in any case
	must(t, q.PutLetter(t.Context(), "m", whole, registry.Invalid))
	if all = letters(t, q); len(all) != 1 || !bytes.Equal(all[0].Body, whole) {
		t.Errorf("%d letters, the first of %d bytes", len(all), all[0].Size)
	}
}
