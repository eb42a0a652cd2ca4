package wire

import (
	"fmt"
	"math"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// ParseRange reads a request's Range header. A suffix range -n is returned with Offset -n. partial is false when there is no
// range to honour: no header, another unit, or a malformed one, which RFC 9110, section 14.2, lets a server ignore.
// More than one range is Invalid, answered with 400: every client that asks for several then asks for one at a time
// (stargz, SOCI, containers/image). Numbers too large for an int64 are taken as the largest.
func ParseRange(header string) (r registry.Range, partial bool, err error) {
	spec, ok := strings.CutPrefix(strings.TrimSpace(header), "bytes=")
	if !ok {
		return registry.Whole, false, nil
	}
	if strings.Contains(spec, ",") {
		return registry.Whole, false, invalid(CodeUnknown, "range: one range at a time, please")
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	if !ok {
		return registry.Whole, false, nil
	}
	if first == "" {
		n, _, ok := number(last)
		if !ok {
			return registry.Whole, false, nil
		}
		if n == 0 { // no last byte to give: unsatisfiable at any size
			return registry.Range{Offset: math.MaxInt64, Length: -1}, true, nil
		}
		return registry.Range{Offset: -n, Length: -1}, true, nil
	}
	from, _, ok := number(first)
	if !ok {
		return registry.Whole, false, nil
	}
	if last == "" {
		return registry.Range{Offset: from, Length: -1}, true, nil
	}
	to, _, ok := number(last)
	if !ok || to < from {
		return registry.Whole, false, nil
	}
	if to-from == math.MaxInt64 { // the length would not fit
		return registry.Range{Offset: from, Length: -1}, true, nil
	}
	return registry.Range{Offset: from, Length: to - from + 1}, true, nil
}

// Absolute turns a suffix range into one from the front of an object of size bytes; others are returned as they are.
func Absolute(r registry.Range, size int64) registry.Range {
	if r.Offset < 0 {
		r.Offset = max(0, size+r.Offset)
	}
	return r
}

// FormatRange returns the Range header that asks for r, or "" when r is the whole object and needs none. r is not empty.
func FormatRange(r registry.Range) string {
	switch {
	case r.Length >= 0:
		return fmt.Sprintf("bytes=%d-%d", r.Offset, r.Offset+r.Length-1)
	case r.Offset > 0:
		return fmt.Sprintf("bytes=%d-", r.Offset)
	}
	return ""
}

// FormatContentRange returns the Content-Range of a 206: r, clipped and not empty, of size bytes.
func FormatContentRange(r registry.Range, size int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", r.Offset, r.Offset+r.Length-1, size)
}

// UnsatisfiedRange returns the Content-Range of a 416.
func UnsatisfiedRange(size int64) string { return fmt.Sprintf("bytes */%d", size) }

// ParseContentRange reads the Content-Range of a 206: what the body holds, and the whole object's size, -1 when the registry
// does not say. What contradicts itself is Corrupt.
func ParseContentRange(header string) (r registry.Range, size int64, err error) {
	bad := registry.Errorf(registry.Corrupt, "content-range %q: invalid", clean(header, 64))
	spec, ok := strings.CutPrefix(strings.TrimSpace(header), "bytes ")
	if !ok {
		return registry.Range{}, 0, bad
	}
	span, total, ok1 := strings.Cut(spec, "/")
	first, last, ok2 := strings.Cut(strings.TrimSpace(span), "-")
	from, over1, ok3 := number(first)
	to, over2, ok4 := number(last)
	if !ok1 || !ok2 || !ok3 || !ok4 || over1 || over2 || to < from || to == math.MaxInt64 {
		return registry.Range{}, 0, bad
	}
	size = -1
	if total = strings.TrimSpace(total); total != "*" {
		var over bool
		if size, over, ok = number(total); !ok || over || to >= size {
			return registry.Range{}, 0, bad
		}
	}
	return registry.Range{Offset: from, Length: to - from + 1}, size, nil
}
