package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Class says what the caller of a failed operation should do. It is itself an error, so errors.Is(err, NotFound) asks
// whether err is of that class.
type Class uint8

const (
	Internal    Class = iota // a defect or a broken disk here: give up, report
	NotFound                 // the registry said that it is not there
	Denied                   // credentials are missing, expired or not enough
	Invalid                  // the request can never succeed as it is
	Conflict                 // an immutable tag names another digest
	Throttled                // ask again later, slower
	Unavailable              // no answer, or 5xx: ask again later or elsewhere
	Corrupt                  // bytes do not match their digest or size
)

var classNames = [...]string{"internal error", "not found", "denied", "invalid", "conflict", "throttled", "unavailable", "corrupt"}

func (c Class) String() string { return classNames[c] }
func (c Class) Error() string  { return classNames[c] }

// Result is what metrics and spans call the outcome of an operation: ok, or the class of its error, such as not_found.
func Result(err error) string {
	if err == nil {
		return "ok"
	}
	return strings.ReplaceAll(ClassOf(err).String(), " ", "_")
}

// Error codes of the OCI distribution specification (section "Error Codes"): what a client reads in the JSON body.
const (
	CodeNameUnknown     = "NAME_UNKNOWN"
	CodeNameInvalid     = "NAME_INVALID"
	CodeManifestUnknown = "MANIFEST_UNKNOWN"
	CodeBlobUnknown     = "BLOB_UNKNOWN"
	CodeDigestInvalid   = "DIGEST_INVALID"
	CodeTagInvalid      = "TAG_INVALID"
)

// Error is an error with a Class.
type Error struct {
	Class      Class
	Code       string        // the registry's error code, if it gave one
	RetryAfter time.Duration // 0 when the registry did not say
	Err        error         // what happened; never nil
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Is matches a Class, so that errors.Is(err, registry.NotFound) works through any wrapping.
func (e *Error) Is(target error) bool { c, ok := target.(Class); return ok && c == e.Class }

// Errorf returns an *Error of class c. A code among Code… may be set on the result.
func Errorf(c Class, format string, args ...any) *Error {
	return &Error{Class: c, Err: fmt.Errorf(format, args...)}
}

// Unknown is the NotFound of o, with the code that a client expects for its kind.
func Unknown(o Object) error {
	e := Errorf(NotFound, "%v: not found", o)
	e.Code = CodeBlobUnknown
	if o.Kind == Manifest {
		e.Code = CodeManifestUnknown
	}
	return e
}

// ClassOf returns the class of err. Deadlines and cancellation are Unavailable; an error without a class is Internal.
func ClassOf(err error) Class {
	var e *Error
	var c Class
	switch {
	case errors.As(err, &e):
		return e.Class
	case errors.As(err, &c):
		return c
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Unavailable
	}
	return Internal
}

// CodeOf returns the registry error code that err carries, or "".
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
