package ecr

import (
	"regexp"
	"strings"
)

// Host is what one of ECR's registry host names says.
type Host struct {
	Account, Region string
	Partition       string // aws, aws-cn, aws-us-gov, aws-eusc, aws-iso, aws-iso-b, aws-iso-e, aws-iso-f
	FIPS, DualStack bool
}

// hostPattern is the recognizer of AWS's own helpers: amazon-ecr-credential-helper, ecr-login/api/client.go, and
// kubernetes/cloud-provider-aws.
var hostPattern = regexp.MustCompile(`^(\d{12})\.dkr[.\-]ecr(-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(amazonaws\.(?:com(?:\.cn)?|eu)|on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

// ParseHost reads the host name of a private ECR registry; ok is false for any other host.
func ParseHost(host string) (h Host, ok bool) {
	m := hostPattern.FindStringSubmatch(host)
	if m == nil {
		return Host{}, false
	}
	h = Host{Account: m[1], Region: m[3], FIPS: m[2] != "", DualStack: strings.HasPrefix(m[4], "on.")}
	switch m[4] {
	case "amazonaws.com.cn", "on.amazonwebservices.com.cn":
		h.Partition = "aws-cn"
	case "amazonaws.eu":
		h.Partition = "aws-eusc"
	case "c2s.ic.gov":
		h.Partition = "aws-iso"
	case "sc2s.sgov.gov":
		h.Partition = "aws-iso-b"
	case "cloud.adc-e.uk":
		h.Partition = "aws-iso-e"
	case "csp.hci.ic.gov":
		h.Partition = "aws-iso-f"
	default:
		h.Partition = "aws"
		if strings.HasPrefix(h.Region, "us-gov-") {
			h.Partition = "aws-us-gov"
		}
	}
	return h, true
}

// PartitionOf returns the partition that a region is in, by its name (AWS General Reference, "Partitions").
func PartitionOf(region string) string {
	for _, p := range [...]struct{ prefix, partition string }{{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"eusc-", "aws-eusc"}, {"us-iso-", "aws-iso"},
		{"us-isob-", "aws-iso-b"}, {"eu-isoe-", "aws-iso-e"}, {"us-isof-", "aws-iso-f"}, {"eu-isof-", "aws-iso-f"}} {
		if strings.HasPrefix(region, p.prefix) {
			return p.partition
		}
	}
	return "aws"
}
