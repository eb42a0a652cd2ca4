package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
)

// Size is a number of bytes.
type Size int64

var sizeText = regexp.MustCompile(`^([0-9]+) ?(|B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$`)

// UnmarshalText reads 50GiB, 500MB or 1024.
func (s *Size) UnmarshalText(text []byte) error {
	units := map[string]int64{"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
	m := sizeText.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("want a size like 50GiB, not %q", text)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	unit := units[string(m[2])]
	if err != nil || n > math.MaxInt64/unit {
		return fmt.Errorf("size %q is too large", text)
	}
	*s = Size(n * unit)
	return nil
}
