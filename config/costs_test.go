package config_test

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/config"
)

func TestCosts(t *testing.T) {
	for _, tc := range []struct {
		yaml string
		want config.Costs
		bad  bool
	}{
		{"", config.Costs{TransferPerGB: 0.02, NATPerGB: 0.045, ZonePerGB: 0.01}, false},
		{"costs: {transferPerGB: 0}", config.Costs{NATPerGB: 0.045, ZonePerGB: 0.01}, false},
		{"costs: {natPerGB: 1e-3, zonePerGB: 0}", config.Costs{TransferPerGB: 0.02, NATPerGB: 0.001}, false},
		{"costs: {transferPerGB: -1}", config.Costs{}, true},
		{"costs: {transferPerGB: NaN}", config.Costs{}, true},
		{"costs: {zonePerGB: $1}", config.Costs{}, true},
		{"costs: {storage: 1}", config.Costs{}, true},
	} {
		c, err := config.Parse("c.yaml", []byte(tc.yaml+"\nmirrors:\n- source: {registry: example.com}\n"), env(nil))
		if (err != nil) != tc.bad || err == nil && c.Costs != tc.want {
			t.Errorf("%q: %+v, %v", tc.yaml, c, err)
		}
	}
}
