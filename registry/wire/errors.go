package wire

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/distribution/v3/registry/api/errcode"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Error codes beyond those of package registry; the last two are Distribution's.
const (
	CodeUnauthorized            = "UNAUTHORIZED"
	CodeDenied                  = "DENIED"
	CodeUnsupported             = "UNSUPPORTED"
	CodeTooManyRequests         = "TOOMANYREQUESTS"
	CodeUnavailable             = "UNAVAILABLE"
	CodeRangeInvalid            = "RANGE_INVALID"
	CodePaginationNumberInvalid = "PAGINATION_NUMBER_INVALID"
	CodeUnknown                 = "UNKNOWN"
)

// maxMessage is the most bytes of a message that is read from, or written to, the other side.
const maxMessage = 256

// Status returns the HTTP status that tells a client of err. It is never 401, which needs a challenge, and never 429:
// containerd repeats a 429 at once, several times, and podman sleeps 30 s before its next host, while both take a 503
// to the next host.
func Status(err error) int {
	code := registry.CodeOf(err)
	switch registry.ClassOf(err) {
	case registry.NotFound:
		return http.StatusNotFound
	case registry.Denied:
		return http.StatusForbidden
	case registry.Invalid:
		switch code {
		case CodeUnsupported:
			return http.StatusMethodNotAllowed
		case CodeRangeInvalid:
			return http.StatusRequestedRangeNotSatisfiable
		}
		return http.StatusBadRequest
	case registry.Conflict:
		return http.StatusConflict
	case registry.Throttled, registry.Unavailable, registry.Corrupt:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// WriteError answers r with err: status, which is mostly its [Status], Retry-After if err has one, and the body that
// Distribution's errcode.ServeJSON writes, or none for HEAD. Of an Internal error the client learns nothing else.
func WriteError(w http.ResponseWriter, r *http.Request, status int, err error) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	var e *registry.Error
	if errors.As(err, &e) && e.RetryAfter > 0 && status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	message := clean(err.Error(), maxMessage)
	if registry.ClassOf(err) == registry.Internal {
		message = "internal error"
	}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		// A client that is gone cannot be told; nobody else wants to know.
		_ = json.NewEncoder(w).Encode(errcode.Errors{codeFor(status, err).WithMessage(message)})
	}
}

// codeFor picks the body's code: the error's own where it belongs to the status, for an upstream's code may not.
func codeFor(status int, err error) errcode.ErrorCode {
	code := errcode.ParseErrorCode(registry.CodeOf(err))
	if code.Descriptor().HTTPStatusCode == status {
		return code
	}
	switch status {
	case http.StatusUnauthorized:
		return errcode.ErrorCodeUnauthorized
	case http.StatusForbidden:
		return errcode.ErrorCodeDenied
	case http.StatusServiceUnavailable:
		return errcode.ErrorCodeUnavailable
	case http.StatusConflict:
		return errcode.ErrorCodeTagInvalid
	}
	return errcode.ErrorCodeUnknown
}

// Unsupported is the error of an endpoint or a method that is not served: 405.
func Unsupported(message string) error { return invalid(CodeUnsupported, "%s", message) }

// RetryAfter reads a Retry-After header: seconds, or a date as of now. 0 when there is none to read; at most an hour, for a
// registry's clock or operator may err.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	var d time.Duration
	if n, _, ok := number(v); ok {
		d = time.Duration(min(n, 3600)) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}

// clean bounds s to limit bytes of valid UTF-8 on one line: what others wrote ends up in logs and terminals.
func clean(s string, limit int) string {
	cut := len(s) > 4*limit
	if cut {
		s = s[:4*limit]
	}
	s = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, "?"), func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if !cut && len(s) <= limit {
		return s
	}
	if len(s) > limit {
		s = s[:limit]
		for !utf8.ValidString(s) { // the cut may have hit the middle of a rune
			s = s[:len(s)-1]
		}
	}
	return s + "..."
}
