package ecr

import (
	"net/url"
	"testing"
	"time"
)

// Whatever an answer says is a layer's URL, what is asked is https or loopback, and not for ever.
func FuzzLayerURL(f *testing.F) {
	for _, s := range []string{
		"https://prod-us-west-2-starport-layer-bucket.s3.us-west-2.amazonaws.com/x?X-Amz-Date=20261121T120000Z&X-Amz-Expires=3600",
		"http://127.0.0.1:80/layer", "http://localhost/?X-Amz-Expires=-1", "https://user@example.com/", "http://169.254.169.254/latest", "https://[::1", "//x",
		"https://example.com/?X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999999999999",
	} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		l, err := parseLayerURL(s, now)
		if err != nil {
			return
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
			t.Errorf("%q: %v", s, err)
		}
		if l.expires.Before(l.renew) {
			t.Errorf("%q: expires at %v, to be renewed at %v", s, l.expires, l.renew)
		}
	})
}
