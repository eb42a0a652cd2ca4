package replicate

import "errors"

// placeError says where an operation failed: a NotFound of the source and one of the destination ask for different things.
type placeError struct {
	destination bool
	err         error
}

func (e *placeError) Error() string {
	if e.destination {
		return "destination: " + e.err.Error()
	}
	return "source: " + e.err.Error()
}

func (e *placeError) Unwrap() error { return e.err }

func atSource(err error) error { return &placeError{false, err} }

// atDestination leaves alone what already says where it failed.
func atDestination(err error) error {
	var at *placeError
	if err == nil || errors.As(err, &at) {
		return err
	}
	return &placeError{true, err}
}

func isDestination(err error) bool {
	var at *placeError
	return errors.As(err, &at) && at.destination
}
