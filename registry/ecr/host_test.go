package ecr

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func TestParseHost(t *testing.T) {
	for host, want := range map[string]Host{
		"111122223333.dkr.ecr.us-west-2.amazonaws.com":                {"111122223333", "us-west-2", "aws", false, false},
		"111122223333.dkr.ecr-fips.us-east-1.amazonaws.com":           {"111122223333", "us-east-1", "aws", true, false},
		"111122223333.dkr-ecr.eu-central-1.on.aws":                    {"111122223333", "eu-central-1", "aws", false, true},
		"111122223333.dkr-ecr-fips.us-west-1.on.aws":                  {"111122223333", "us-west-1", "aws", true, true},
		"111122223333.dkr.ecr.us-gov-west-1.amazonaws.com":            {"111122223333", "us-gov-west-1", "aws-us-gov", false, false},
		"111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn":            {"111122223333", "cn-north-1", "aws-cn", false, false},
		"111122223333.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {"111122223333", "cn-north-1", "aws-cn", false, true},
		"111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {"111122223333", "eusc-de-east-1", "aws-eusc", false, false},
		"111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov":               {"111122223333", "us-iso-east-1", "aws-iso", false, false},
		"111122223333.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {"111122223333", "us-isob-east-1", "aws-iso-b", false, false},
		"111122223333.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk":          {"111122223333", "eu-isoe-west-1", "aws-iso-e", false, false},
		"111122223333.dkr.ecr.us-isof-south-1.csp.hci.ic.gov":         {"111122223333", "us-isof-south-1", "aws-iso-f", false, false},
	} {
		if got, ok := ParseHost(host); !ok || got != want {
			t.Errorf("%s: got %+v, %v", host, got, ok)
		}
	}
	for _, host := range []string{"", "docker.io", "public.ecr.aws", "11112222333.dkr.ecr.us-west-2.amazonaws.com",
		"111122223333.dkr.ecr.us-west-2.amazonaws.com.evil.example", "x111122223333.dkr.ecr.us-west-2.amazonaws.com",
		"111122223333.dkr.ecr.us-west-2.amazonaws.com:443", "111122223333.dkr.ecr..amazonaws.com", "111122223333.dkr.ecr.us-west-2.amazonaws.com\n"} {
		if got, ok := ParseHost(host); ok {
			t.Errorf("%q: recognized as %+v", host, got)
		}
	}
}

// roundTrip is an HTTP client that only notes where it was sent.
type roundTrip struct{ host string }

func (r *roundTrip) Do(req *http.Request) (*http.Response, error) {
	r.host = req.URL.Host
	return nil, http.ErrHandlerTimeout
}

// The control API's host follows the registry's: FIPS, dual-stack, partition; an endpoint overrides all of it.
func TestControlHost(t *testing.T) {
	for _, tc := range []struct{ host, endpoint, want string }{
		{"111122223333.dkr.ecr.us-west-2.amazonaws.com", "", "api.ecr.us-west-2.amazonaws.com"},
		{"111122223333.dkr.ecr-fips.us-east-1.amazonaws.com", "", "ecr-fips.us-east-1.amazonaws.com"},
		{"111122223333.dkr-ecr.us-east-1.on.aws", "", "ecr.us-east-1.api.aws"},
		{"111122223333.dkr-ecr-fips.us-east-1.on.aws", "", "ecr-fips.us-east-1.api.aws"},
		{"111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn", "", "api.ecr.cn-north-1.amazonaws.com.cn"},
		{"111122223333.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn", "", "ecr.cn-north-1.api.amazonwebservices.com.cn"},
		{"111122223333.dkr.ecr.us-gov-west-1.amazonaws.com", "", "api.ecr.us-gov-west-1.amazonaws.com"},
		{"111122223333.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "", "ecr-fips.us-gov-west-1.amazonaws.com"},
		{"111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu", "", "api.ecr.eusc-de-east-1.amazonaws.eu"},
		{"111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov", "", "api.ecr.us-iso-east-1.c2s.ic.gov"},
		{"111122223333.dkr.ecr.us-isob-east-1.sc2s.sgov.gov", "", "api.ecr.us-isob-east-1.sc2s.sgov.gov"},
		{"111122223333.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "", "api.ecr.eu-isoe-west-1.cloud.adc-e.uk"},
		{"111122223333.dkr.ecr.us-isof-south-1.csp.hci.ic.gov", "", "api.ecr.us-isof-south-1.csp.hci.ic.gov"},
		{"111122223333.dkr-ecr-fips.us-east-1.on.aws", "https://vpce-1.example", "vpce-1.example"},
	} {
		rt := new(roundTrip)
		cfg := fixedAWS()
		cfg.HTTPClient = rt
		r, err := New(t.Context(), Options{Host: tc.host, Endpoint: tc.endpoint, AWS: cfg})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Resolve(t.Context(), "team/app", "v1")
		wantClass(t, err, registry.Unavailable, "")
		if strings.TrimPrefix(rt.host, "api.") != strings.TrimPrefix(tc.want, "api.") || r.String() != tc.host {
			t.Errorf("%s: asked %s, want %s", tc.host, rt.host, tc.want)
		}
	}
	_, err := New(t.Context(), Options{Host: "registry.example"})
	wantClass(t, err, registry.Invalid, "")
}

// The partition of a region is that of its hosts.
func TestPartitionOf(t *testing.T) {
	for _, host := range []string{"111122223333.dkr.ecr.us-west-2.amazonaws.com", "111122223333.dkr.ecr.us-gov-west-1.amazonaws.com", "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn",
		"111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu", "111122223333.dkr.ecr.us-iso-east-1.c2s.ic.gov", "111122223333.dkr.ecr.us-isob-east-1.sc2s.sgov.gov",
		"111122223333.dkr.ecr.eu-isoe-west-1.cloud.adc-e.uk", "111122223333.dkr.ecr.us-isof-south-1.csp.hci.ic.gov"} {
		if h, ok := ParseHost(host); !ok || PartitionOf(h.Region) != h.Partition {
			t.Errorf("%s: %s, %s", host, PartitionOf(h.Region), h.Partition)
		}
	}
}
