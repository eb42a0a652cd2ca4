package registry_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func TestClip(t *testing.T) {
	for _, tt := range []struct {
		r    registry.Range
		size int64
		want registry.Range
		ok   bool
	}{
		{registry.Whole, 10, registry.Range{Offset: 0, Length: 10}, true},
		{registry.Whole, 0, registry.Range{}, true},
		{registry.Range{Offset: 9, Length: 1}, 10, registry.Range{Offset: 9, Length: 1}, true},
		{registry.Range{Offset: 9, Length: math.MaxInt64}, 10, registry.Range{Offset: 9, Length: 1}, true},
		{registry.Range{Offset: 3, Length: -7}, 10, registry.Range{Offset: 3, Length: 7}, true},
		{registry.Range{Offset: 3, Length: 0}, 10, registry.Range{Offset: 3, Length: 0}, true},
		{registry.Range{Offset: 10, Length: -1}, 10, registry.Range{}, false},
		{registry.Range{Offset: 11, Length: 1}, 10, registry.Range{}, false},
		{registry.Range{Offset: math.MaxInt64, Length: math.MaxInt64}, 10, registry.Range{}, false},
		{registry.Range{Offset: -1, Length: 5}, 10, registry.Range{}, false},
		{registry.Range{Offset: 1, Length: -1}, 0, registry.Range{}, false},
	} {
		got, ok := tt.r.Clip(tt.size)
		if got != tt.want || ok != tt.ok {
			t.Errorf("%v.Clip(%d) = %v, %v, want %v, %v", tt.r, tt.size, got, ok, tt.want, tt.ok)
		}
	}
}

// What Clip returns lies within the object and begins where it was asked to.
func TestClipProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Min(0).Draw(t, "size")
		r := registry.Range{Offset: rapid.Int64().Draw(t, "offset"), Length: rapid.Int64().Draw(t, "length")}
		c, ok := r.Clip(size)
		if !ok {
			if r.Offset >= 0 && r.Offset < size {
				t.Fatalf("%v of %d refused", r, size)
			}
			return
		}
		if c.Offset != r.Offset || c.Length < 0 || c.Length > size-c.Offset || (r.Length >= 0 && c.Length > r.Length) {
			t.Fatalf("%v of %d is %v", r, size, c)
		}
		if again, ok := c.Clip(size); !ok || again != c {
			t.Fatalf("%v clipped again is %v, %v", c, again, ok)
		}
	})
}

func TestClasses(t *testing.T) {
	throttled := registry.Errorf(registry.Throttled, "slow down")
	throttled.Code, throttled.RetryAfter = "TOOMANYREQUESTS", time.Second
	wrapped := fmt.Errorf("open x: %w", throttled)
	for _, tt := range []struct {
		err   error
		class registry.Class
		code  string
	}{
		{throttled, registry.Throttled, "TOOMANYREQUESTS"},
		{wrapped, registry.Throttled, "TOOMANYREQUESTS"},
		{registry.Corrupt, registry.Corrupt, ""},
		{fmt.Errorf("x: %w", registry.Denied), registry.Denied, ""},
		{context.Canceled, registry.Unavailable, ""},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), registry.Unavailable, ""},
		{registry.Errorf(registry.Corrupt, "x: %w", context.Canceled), registry.Corrupt, ""}, // a stated class wins
		{registry.Errorf(registry.Corrupt, "x: %w", throttled), registry.Corrupt, ""},        // and so does the outer one
		{errors.New("disk"), registry.Internal, ""},
		{registry.Unknown(registry.Object{Kind: registry.Blob}), registry.NotFound, registry.CodeBlobUnknown},
		{registry.Unknown(registry.Object{Kind: registry.Manifest}), registry.NotFound, registry.CodeManifestUnknown},
	} {
		if got := registry.ClassOf(tt.err); got != tt.class {
			t.Errorf("%v: class %v, want %v", tt.err, got, tt.class)
		}
		if got := registry.CodeOf(tt.err); got != tt.code {
			t.Errorf("%v: code %q, want %q", tt.err, got, tt.code)
		}
	}
	if !errors.Is(wrapped, registry.Throttled) || errors.Is(wrapped, registry.NotFound) {
		t.Error("errors.Is does not see the class through wrapping, or sees another")
	}
	var e *registry.Error
	if !errors.As(wrapped, &e) || e.RetryAfter != time.Second {
		t.Errorf("retry after: %v", e)
	}
	for c := registry.Internal; c <= registry.Corrupt; c++ {
		if c.String() == "" || c.Error() != c.String() {
			t.Errorf("class %d: %q, %q", c, c.String(), c.Error())
		}
	}
}
