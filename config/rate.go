package config

import (
	"fmt"
	"strconv"
)

// Rate is calls per second; 0: the default.
type Rate float64

// maxRate is beyond any quota that AWS grants, and what keeps arithmetic with it sane.
const maxRate = 1e5

// UnmarshalText reads 5 or 2.5.
func (r *Rate) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0.01 && f <= maxRate) {
		return fmt.Errorf("want calls per second from 0.01 to %d, not %q", int(maxRate), text)
	}
	*r = Rate(f)
	return nil
}

// Share is a part of a whole; 0: the default.
type Share float64

// UnmarshalText reads 0.01 or 1.
func (s *Share) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f > 0 && f <= 1) {
		return fmt.Errorf("want more than 0 and at most 1, not %q", text)
	}
	*s = Share(f)
	return nil
}
