package wire_test

import (
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

func TestParseRange(t *testing.T) {
	type rg = registry.Range
	for in, want := range map[string]struct {
		r       rg
		partial bool
	}{
		"":                             {registry.Whole, false},
		"bytes=0-":                     {rg{Offset: 0, Length: -1}, true},
		"bytes=7-":                     {rg{Offset: 7, Length: -1}, true},
		"bytes=0-0":                    {rg{Offset: 0, Length: 1}, true},
		"bytes=2-5":                    {rg{Offset: 2, Length: 4}, true},
		" bytes=2-5 ":                  {rg{Offset: 2, Length: 4}, true},
		"bytes=-5":                     {rg{Offset: -5, Length: -1}, true},
		"bytes=-0":                     {rg{Offset: math.MaxInt64, Length: -1}, true},
		"bytes=99999999999999999999-":  {rg{Offset: math.MaxInt64, Length: -1}, true},
		"bytes=-99999999999999999999":  {rg{Offset: -math.MaxInt64, Length: -1}, true},
		"bytes=5-99999999999999999999": {rg{Offset: 5, Length: math.MaxInt64 - 4}, true},
		"bytes=0-9223372036854775807":  {rg{Offset: 0, Length: -1}, true},
		"bytes=5-2":                    {registry.Whole, false},
		"bytes=":                       {registry.Whole, false},
		"bytes=-":                      {registry.Whole, false},
		"bytes=--5":                    {registry.Whole, false},
		"bytes=+1-2":                   {registry.Whole, false},
		"bytes=0x1-2":                  {registry.Whole, false},
		"bytes=1":                      {registry.Whole, false},
		"bytes 1-2":                    {registry.Whole, false},
		"items=1-2":                    {registry.Whole, false},
	} {
		r, partial, err := wire.ParseRange(in)
		if r != want.r || partial != want.partial || err != nil {
			t.Errorf("%q: %v %t %v, want %v %t", in, r, partial, err, want.r, want.partial)
		}
	}
	for _, in := range []string{"bytes=0-1,3-4", "bytes=0-1,", "bytes=,"} {
		if _, _, err := wire.ParseRange(in); wire.Status(err) != http.StatusBadRequest {
			t.Errorf("%q: %v, want 400", in, err)
		}
	}
}

func TestAbsolute(t *testing.T) {
	for _, c := range []struct {
		in   int64
		size int64
		want int64
	}{{-5, 10, 5}, {-10, 10, 0}, {-11, 10, 0}, {-math.MaxInt64, 10, 0}, {3, 10, 3}, {-1, 0, 0}} {
		if got := wire.Absolute(registry.Range{Offset: c.in, Length: -1}, c.size).Offset; got != c.want {
			t.Errorf("%d of %d: %d, want %d", c.in, c.size, got, c.want)
		}
	}
}

func TestFormatRange(t *testing.T) {
	for want, r := range map[string]registry.Range{
		"": registry.Whole, "bytes=3-": {Offset: 3, Length: -1}, "bytes=3-6": {Offset: 3, Length: 4}, "bytes=0-0": {Offset: 0, Length: 1},
	} {
		if got := wire.FormatRange(r); got != want {
			t.Errorf("%v: %q, want %q", r, got, want)
		}
	}
	if got := wire.UnsatisfiedRange(7); got != "bytes */7" {
		t.Error(got)
	}
}

func TestParseContentRange(t *testing.T) {
	for in, want := range map[string]struct{ off, n, size int64 }{
		"bytes 0-0/1": {0, 1, 1}, "bytes 2-5/10": {2, 4, 10}, "bytes 2-5/*": {2, 4, -1}, " bytes 2-5/6 ": {2, 4, 6},
	} {
		r, size, err := wire.ParseContentRange(in)
		if r.Offset != want.off || r.Length != want.n || size != want.size || err != nil {
			t.Errorf("%q: %v %d %v", in, r, size, err)
		}
	}
	for _, in := range []string{"", "bytes", "bytes */10", "bytes 5-2/10", "bytes 2-10/10", "bytes 2-5", "bytes 2-5/", "bytes -5/10",
		"bytes 2-5/-1", "bytes 0-9223372036854775807/*", "bytes 0-99999999999999999999/*", "octets 2-5/10", "bytes 2-5/99999999999999999999"} {
		if _, _, err := wire.ParseContentRange(in); registry.ClassOf(err) != registry.Corrupt {
			t.Errorf("%q: %v, want corrupt", in, err)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=1-2", "bytes=-3", "bytes=9223372036854775807-", "bytes=0-9223372036854775807", "bytes=1-2,3-4"} {
		f.Add(s, int64(1000))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		r, partial, err := wire.ParseRange(s)
		if err != nil || !partial || size < 0 {
			return
		}
		c, ok := wire.Absolute(r, size).Clip(size)
		if ok && (c.Offset < 0 || c.Length < 0 || c.Offset+c.Length > size || c.Length == 0 && size > 0) {
			t.Fatalf("%q of %d: %v", s, size, c)
		}
	})
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 2-5/*", "bytes */3", "bytes 0-9223372036854775807/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, size, err := wire.ParseContentRange(s)
		if err != nil {
			return
		}
		if r.Offset < 0 || r.Length <= 0 || r.Offset+r.Length <= 0 || size >= 0 && r.Offset+r.Length > size {
			t.Fatalf("%q: %v of %d", s, r, size)
		}
		if size >= 0 {
			if again, n, err := wire.ParseContentRange(wire.FormatContentRange(r, size)); again != r || n != size || err != nil {
				t.Fatalf("%q: %v of %d, again %v of %d: %v", s, r, size, again, n, err)
			}
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "99999999999999999999": time.Hour, "-1": 0, "soon": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
		now.Add(100 * time.Hour).Format(http.TimeFormat): time.Hour,
	} {
		if got := wire.RetryAfter(http.Header{"Retry-After": {in}}, now); got != want {
			t.Errorf("%q: %v, want %v", in, got, want)
		}
	}
}

// response makes what a client reads of handler's answer.
func response(method string, handler http.HandlerFunc) *http.Response {
	w := httptest.NewRecorder()
	handler(w, httptest.NewRequest(method, "/v2/", strings.NewReader("")))
	return w.Result()
}
