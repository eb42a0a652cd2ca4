package wire

import (
	"net/url"
	"strconv"
	"time"
)

// PresignedLife returns when a presigned URL was made and how long it lives: X-Amz-Date and X-Amz-Expires (Signature Version 4,
// "Authenticating requests: using query parameters"), or Google's parameters of the same form. A date that is missing, or in
// the future because a clock here is slow, is taken as now, which is the safe side. ok is false when the URL does not say.
func PresignedLife(u *url.URL, now time.Time) (from time.Time, life time.Duration, ok bool) {
	q := u.Query()
	for _, p := range []string{"X-Amz-", "X-Goog-"} {
		n, err := strconv.Atoi(q.Get(p + "Expires"))
		if err != nil || n <= 0 || n > 7*24*3600 { // the longest that either allows
			continue
		}
		from = now
		if t, err := time.Parse("20060102T150405Z", q.Get(p+"Date")); err == nil && t.Before(now) {
			from = t
		}
		return from, time.Duration(n) * time.Second, true
	}
	return time.Time{}, 0, false
}
