package config

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/distribution/reference"
)

// ecrHost recognizes ECR's registry hosts in every partition; the groups are account and region. It is the pattern of AWS's
// own helpers (amazon-ecr-credential-helper, ecr-login/api/client.go).
var ecrHost = regexp.MustCompile(`^(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-zA-Z0-9][a-zA-Z0-9-_]*)\.(?:amazonaws\.(?:com(?:\.cn)?|eu)|` +
	`on\.(?:aws|amazonwebservices\.com\.cn)|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov)$`)

var (
	domain   = regexp.MustCompile(`^(?:` + reference.DomainRegexp.String() + `)$`)
	accounts = regexp.MustCompile(`^[0-9]{12}$`)
	regions  = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)
	roles    = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[!-~]+$`)
)

// Host returns the registry's host, with its port if one is given, in lower case.
func (r *Registry) Host() string {
	_, host, ok := strings.Cut(r.Registry, "://")
	if !ok {
		host = r.Registry
	}
	return strings.ToLower(strings.TrimSuffix(host, "/"))
}

// PlainHTTP reports whether the registry is spoken to without TLS.
func (r *Registry) PlainHTTP() bool { return strings.HasPrefix(r.Registry, "http://") }

// IsECR reports whether the registry is ECR, by its host or because its type says so.
func (r *Registry) IsECR() bool { return r.Type == "ecr" || ecrHost.MatchString(r.Host()) }

// registry checks r and fills in what an ECR host says of itself.
func (c *checker) registry(path string, r *Registry) {
	c.oneOf(path+".type", r.Type, []string{"", "ecr"})
	if r.Registry == "" {
		c.problem(path+".registry", "required")
		return
	}
	scheme, _, ok := strings.Cut(r.Registry, "://")
	if ok && scheme != "http" && scheme != "https" {
		c.problem(path+".registry", "scheme %q: want https or http", scheme)
	}
	if !validHost(r.Host()) {
		c.problem(path+".registry", "%q is not a host or host:port", r.Host())
		return
	}
	if r.PlainHTTP() && !r.Insecure && !loopback(r.Host()) {
		c.problem(path+".registry", "plain HTTP to %s, which is not loopback: use https, or say insecure: true", r.Host())
	}
	c.path(&r.PasswordFile)
	if r.NS = strings.ToLower(r.NS); r.NS != "" {
		switch {
		case r.IsECR():
			c.problem(path+".ns", "not for ECR, which is a registry and not a mirror")
		case !validHost(r.NS):
			c.problem(path+".ns", "%q is not a host or host:port", r.NS)
		}
	}
	if !r.IsECR() {
		for _, f := range [...]struct{ key, value string }{{"roleArn", r.RoleARN}, {"profile", r.Profile}, {"endpoint", r.Endpoint}, {"region", r.Region}, {"account", r.Account}} {
			if f.value != "" {
				c.problem(path+"."+f.key, "for ECR only, and %s is not one of its hosts: say type: ecr if it is ECR", r.Host())
			}
		}
		for _, key := range [...]string{"rates", "repositories"} {
			if c.given(path + "." + key) {
				c.problem(path+"."+key, "for ECR only, and %s is not one of its hosts: say type: ecr if it is ECR", r.Host())
			}
		}
		if (r.Username == "") != (r.PasswordFile == "") {
			c.problem(path, "username and passwordFile belong together")
		}
		return
	}
	if r.Username != "" || r.PasswordFile != "" {
		c.problem(path, "username and passwordFile are not for ECR, which takes AWS credentials")
	}
	if m := ecrHost.FindStringSubmatch(r.Host()); m != nil {
		c.derive(path+".account", &r.Account, m[1])
		c.derive(path+".region", &r.Region, m[2])
	}
	c.match(path+".account", r.Account, accounts, "an account of 12 digits")
	c.match(path+".region", r.Region, regions, "a region like eu-central-1")
	if r.RoleARN != "" {
		c.match(path+".roleArn", r.RoleARN, roles, "a role like arn:aws:iam::111122223333:role/name")
	}
	if r.Endpoint != "" {
		c.url(path+".endpoint", r.Endpoint, r.Insecure)
	}
	c.repositories(path+".repositories", r.Repositories)
}

// repositories checks settings as CreateRepository would (API reference).
func (c *checker) repositories(path string, s Repositories) {
	c.oneOf(path+".tagMutability", s.TagMutability, []string{"", "MUTABLE", "IMMUTABLE"})
	c.oneOf(path+".encryption", s.Encryption, []string{"", "AES256", "KMS", "KMS_DSSE"})
	if s.KMSKey != "" && s.Encryption != "KMS" && s.Encryption != "KMS_DSSE" {
		c.problem(path+".kmsKey", "belongs to encryption: KMS or KMS_DSSE")
	}
	if len(s.Tags) > 50 {
		c.problem(path+".tags", "%d, more than the 50 that a resource may have", len(s.Tags))
	}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		if value := s.Tags[key]; key == "" || len(key) > 128 || len(value) > 256 || strings.HasPrefix(strings.ToLower(key), "aws:") {
			c.problem(path+".tags."+key, "not a tag that AWS takes: 1 to 128 characters that do not begin with aws:, and 256 of value")
		}
	}
}

// derive fills in what the host says, which a given value may not contradict.
func (c *checker) derive(path string, value *string, host string) {
	if *value == "" {
		*value = host
	} else if *value != host {
		c.problem(path, "%s, but the host says %s", *value, host)
	}
}

func (c *checker) match(path, value string, valid *regexp.Regexp, want string) {
	switch {
	case value == "" && !c.given(path):
		c.problem(path, "required for ECR on a host that does not tell it")
	case !valid.MatchString(value):
		c.problem(path, "%q is not %s", value, want)
	}
}

// url checks an absolute HTTP URL without credentials.
func (c *checker) url(path, text string, insecure bool) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || !validHost(u.Host):
		c.problem(path, "want a URL like https://host/path")
	case u.User != nil:
		c.problem(path, "a URL with credentials")
	case u.Scheme == "http" && !insecure && !loopback(u.Host):
		c.problem(path, "plain HTTP to %s, which is not loopback", u.Host)
	}
}

// validHost reports whether s is a host or host:port as it may stand before an image's name.
func validHost(s string) bool {
	if !domain.MatchString(s) {
		return false
	}
	if _, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.Atoi(port)
		return err == nil && n > 0 && n < 1<<16
	}
	return true
}

// loopback reports whether host, with or without a port, is this machine by address or as localhost.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback() || strings.EqualFold(host, "localhost")
}
