package wire_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

func TestPresignedLife(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for query, want := range map[string]time.Duration{
		"X-Amz-Expires=600&X-Amz-Date=20260102T030405Z":   600 * time.Second,
		"X-Amz-Expires=600&X-Amz-Date=20260102T030305Z":   540 * time.Second,
		"X-Amz-Expires=600&X-Amz-Date=20260103T030405Z":   600 * time.Second, // a slow clock
		"X-Amz-Expires=600&X-Amz-Date=yesterday":          600 * time.Second,
		"X-Goog-Expires=600&X-Goog-Date=20260102T030305Z": 540 * time.Second,
		"X-Amz-Expires=604801":                            0,
		"X-Amz-Expires=-5":                                0,
		"X-Amz-Expires=x":                                 0,
		"Expires=600":                                     0,
		"":                                                0,
	} {
		from, life, ok := wire.PresignedLife(&url.URL{RawQuery: query}, now)
		if ok != (want > 0) || ok && from.Add(life).Sub(now) != want {
			t.Errorf("%q: %v from %v, %v; want %v from now", query, life, from, ok, want)
		}
	}
}
