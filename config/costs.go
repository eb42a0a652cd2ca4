package config

import (
	"fmt"
	"strconv"
)

// Costs are US dollars per GB (2^30 bytes) of traffic. Defaults are list prices of 2026: inside a continent and without discounts.
type Costs struct {
	// TransferPerGB is paid for what leaves the source's region: 0.01 to 0.02 inside the US or the EU, 0.08 to 0.15 from other
	// continents. 0 where the source is in the mirror's own region. Default: 0.02
	TransferPerGB Price `yaml:"transferPerGB"`
	// NATPerGB is paid for what the mirror reads from the source through a NAT gateway. 0 with public addresses; 0.01 with an
	// interface endpoint. Default: 0.045
	NATPerGB Price `yaml:"natPerGB"`
	// ZonePerGB is paid for what the mirror serves, on average: 0.01 on either side for pulls from another availability zone, which
	// is 0.01 in all if every other pull comes from one. 0 for a sidecar. Default: 0.01
	ZonePerGB Price `yaml:"zonePerGB"`
}

var defaultCosts = Costs{TransferPerGB: 0.02, NATPerGB: 0.045, ZonePerGB: 0.01}

// Price is US dollars per GB.
type Price float64

// UnmarshalText reads 0.02.
func (p *Price) UnmarshalText(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || !(f >= 0 && f <= 1000) { // no number is neither
		return fmt.Errorf("want US dollars per GB like 0.02, not %q", text)
	}
	*p = Price(f)
	return nil
}
