package admin

import (
	"fmt"
	"html/template"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// words are how the page says things.
func words(p *page) template.FuncMap {
	return template.FuncMap{
		"href": func(name string) string { return p.assets[name].href }, "bytes": size, "count": count, "ago": ago, "span": span,
		"short": shortDigest, "place": placeName, "dollars": dollars, "percent": percent, "share": share, "tone": tone, "iso": iso,
		"link": link, "rate": func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }, "seconds": seconds, "bound": bound,
		"host": p.host, "hundred": func(part float64) string { return strconv.FormatFloat(part*100, 'f', 2, 64) },
		"add": func(a, b int64) int64 { return a + b }, "neg": func(v float64) float64 { return -v }, "int64": func(n int) int64 { return int64(n) },
		"tierBytes":      func(v *Overview, name string) int64 { return v.Traffic.tier(name).Bytes },
		"bytesPerSecond": func(v float64) string { return size(int64(v)) + "/s" },
	}
}

// size is n bytes in powers of 1024.
func size(n int64) string {
	f := float64(n)
	for _, unit := range []string{"B", "KiB", "MiB", "GiB", "TiB"} {
		if f < 1000 {
			if unit == "B" || f >= 100 {
				return fmt.Sprintf("%.0f %s", f, unit)
			}
			return fmt.Sprintf("%.1f %s", f, unit)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.1f PiB", f)
}

// count has a thin space between thousands.
func count(number any) string {
	s := fmt.Sprint(number)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func seconds(s float64) string { return span(time.Duration(s * float64(time.Second))) }

// bound is the end of a bucket.
func bound(s float64) string {
	if s < 0 {
		return "longer"
	}
	return seconds(s)
}

// ago is how long before now t was, in one unit, so that it seldom changes; or how long after.
func ago(now, t time.Time) string {
	d, past := now.Sub(t), true
	if d < 0 {
		d, past = -d, false
	}
	text := "now"
	switch {
	case d < 10*time.Second:
		return text
	case d < time.Minute:
		text = fmt.Sprintf("%d s", d/(10*time.Second)*10)
	case d < time.Hour:
		text = fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		text = fmt.Sprintf("%d h", d/time.Hour)
	default:
		text = fmt.Sprintf("%d d", d/(24*time.Hour))
	}
	if past {
		return text + " ago"
	}
	return "in " + text
}

func iso(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// shortDigest is enough of a digest to tell images apart.
func shortDigest(d string) string {
	if _, hex, ok := strings.Cut(d, ":"); ok {
		d = hex
	}
	return d[:min(len(d), 12)]
}

// placeName is what is read first of a registry's host: of one of ECR's its region, and then its account.
func placeName(host string) []string {
	account, rest, ok := strings.Cut(host, ".dkr.ecr.")
	if !ok {
		account, rest, ok = strings.Cut(host, ".dkr.ecr-fips.")
	}
	if region, _, found := strings.Cut(rest, "."); ok && found {
		return []string{region, account}
	}
	return []string{host}
}

func dollars(v float64) string {
	if v <= -0.005 {
		return "−$" + strconv.FormatFloat(-v, 'f', 2, 64)
	}
	return "$" + strconv.FormatFloat(max(v, 0), 'f', 2, 64)
}

func percent(part float64) string { return strconv.FormatFloat(part*100, 'f', 1, 64) + " %" }

// share is part of whole, 0 to 1.
func share(part, whole int64) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}

// tone is the colour of a state: each is also said in words.
func tone(state string) string {
	switch state {
	case "done", "found", "up":
		return "good"
	case "leased":
		return "busy"
	case "dead", "conflict", "down", "left alone":
		return "bad"
	}
	return "calm"
}

// link is the page's address with the query's parameters, one of them changed; "" takes it out.
func link(q imagesQuery, name, value string) string {
	v := url.Values{}
	for k, s := range map[string]string{"mirror": q.Mirror, "repository": q.Repository, "tag": q.Tag, "state": q.State} {
		if s != "" {
			v.Set(k, s)
		}
	}
	if q.Digests {
		v.Set("digests", "1")
	}
	if v.Set(name, value); value == "" {
		v.Del(name)
	}
	if name == "mirror" {
		v = url.Values{"mirror": {value}}
	}
	return "/?" + v.Encode() + "#images"
}
