package wire

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Next returns where a listing goes on: the target of the Link header whose relation is "next" (RFC 8288), resolved against
// the URL of the request that was answered; nil when this was the last page. A target on another host, or over another
// scheme, is Invalid, for the credentials that the caller would send belong to the host; so is a target that is no URL:
// an incomplete listing must not look like a complete one.
func Next(base *url.URL, h http.Header) (*url.URL, error) {
	for _, header := range h.Values("Link") {
		for {
			target, params, rest, ok := cutLink(header)
			if !ok {
				break
			}
			header = rest
			if !isNext(params) {
				continue
			}
			u, err := base.Parse(target)
			if err != nil {
				return nil, registry.Errorf(registry.Invalid, "next page %q: not a URL", clean(target, maxMessage))
			}
			if u.Scheme != base.Scheme || !strings.EqualFold(u.Host, base.Host) || u.User != nil {
				return nil, registry.Errorf(registry.Invalid, "next page %q: not on %s", clean(u.Redacted(), maxMessage), base.Host)
			}
			u.Fragment = ""
			return u, nil
		}
	}
	return nil, nil
}

// cutLink cuts the first link-value `<target>; params` from a Link header. Commas separate links but may also stand in
// targets and quoted strings.
func cutLink(s string) (target, params, rest string, ok bool) {
	_, s, ok1 := strings.Cut(s, "<")
	target, s, ok2 := strings.Cut(s, ">")
	if !ok1 || !ok2 {
		return "", "", "", false
	}
	quoted := false
	for i := range len(s) {
		switch s[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				return target, s[:i], s[i+1:], true
			}
		}
	}
	return target, s, "", true
}

// isNext reports whether a link's parameters say rel=next; rel may hold several relations.
func isNext(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		k, v, _ := strings.Cut(p, "=")
		if !strings.EqualFold(strings.TrimSpace(k), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(v), `"`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
		return false // only the first rel counts: RFC 8288, section 3.3
	}
	return false
}
