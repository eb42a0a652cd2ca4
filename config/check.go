package config

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// checker says what is wrong with values that are well formed, and completes them.
type checker struct {
	*decoder
	dir    string          // where relative paths start
	broken map[string]bool // what the decoder could not read: nothing is said of it or its parts again

	openSaid  bool            // that anybody may pull; once is enough
	clearSaid map[string]bool // that credentials travel in clear, by the auth that wants them
}

func newChecker(d *decoder, dir string) *checker {
	c := &checker{decoder: d, dir: dir, broken: make(map[string]bool), clearSaid: make(map[string]bool)}
	for _, p := range d.problems {
		c.broken[p.Path] = true
	}
	return c
}

func (c *checker) problem(path, format string, args ...any) {
	for p := path; p != ""; p = outer(p) {
		if c.broken[p] {
			return
		}
	}
	c.decoder.problem(path, format, args...)
}

func (c *checker) config(cfg *Config) {
	c.oneOf("role", cfg.Role, parts())
	c.listen("listen", cfg.Listen)
	c.listen("admin", cfg.Admin)
	if cfg.Listen == cfg.Admin && !strings.HasSuffix(cfg.Listen, ":0") {
		c.problem("admin", "the same address as listen")
	}
	certificates := false
	if t := cfg.TLS; t != nil {
		if t.Cert == "" {
			c.problem("tls.cert", "required")
		}
		if t.Key == "" {
			c.problem("tls.key", "required")
		}
		certificates = t.ClientCA != ""
		c.path(&t.Cert, &t.Key, &t.ClientCA)
	}
	c.path(&cfg.Cache.Path)
	c.auth("auth", &cfg.Auth)
	c.adminAuth(cfg)
	if cfg.Cache.Path == "" {
		c.problem("cache.path", "empty")
	}
	c.oneOf("log.level", cfg.Log.Level, []string{"debug", "info", "warn", "error"})
	c.oneOf("log.format", cfg.Log.Format, []string{"text", "json"})
	c.traces(cfg.Traces)
	c.limit("limits.requests", cfg.Limits.Requests, "limits.requestsPerClient", &cfg.Limits.RequestsPerClient)
	c.limit("limits.connections", cfg.Limits.Connections, "limits.connectionsPerClient", &cfg.Limits.ConnectionsPerClient)
	if len(cfg.Mirrors) == 0 {
		c.problem("mirrors", "at least one is required")
	}
	names, queues, hooks := map[string]string{}, map[string]string{}, map[string]string{} // to the path that has them
	for i := range cfg.Mirrors {
		path := fmt.Sprintf("mirrors[%d]", i)
		c.mirror(path, &cfg.Mirrors[i])
		c.access(path, cfg, &cfg.Mirrors[i], certificates)
		for j, name := range cfg.Mirrors[i].Names {
			at := path + ".names"
			if c.given(at) {
				at = fmt.Sprintf("%s[%d]", at, j)
			}
			c.unique(at, name, names)
		}
		if queue := cfg.Mirrors[i].Events.SQS; queue != "" {
			c.unique(path+".events.sqs", queue, queues)
		}
		if hook := cfg.Mirrors[i].Events.Webhook; hook != nil && hook.Path != "" {
			c.unique(path+".events.webhook.path", hook.Path, hooks)
			if !loopback(cfg.Listen) && cfg.TLS == nil && !hook.Insecure {
				c.problem(path+".events.webhook", "its token comes over plain HTTP to %s, which is not loopback: set tls, or say insecure: true", cfg.Listen)
			}
		}
	}
	if len(c.problems) == 0 {
		c.soleWriters(cfg.Mirrors)
		c.circles(cfg.Mirrors)
		c.role(cfg)
	}
}

func (c *checker) traces(t *Traces) {
	if t == nil {
		return
	}
	u, err := url.Parse(t.Endpoint)
	switch {
	case t.Endpoint == "":
		c.problem("traces.endpoint", "required")
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		c.problem("traces.endpoint", "want a base URL, as http://127.0.0.1:4318") // it may hold a password
	default:
		t.Endpoint = strings.TrimRight(t.Endpoint, "/")
	}
	if t.Sample == 0 {
		t.Sample = 0.01
	}
}

// limit checks a total and the part of it that one client may have.
func (c *checker) limit(path string, total int, eachPath string, each *int) {
	if total < 1 {
		c.problem(path, "%d: want at least 1", total)
		return
	}
	if *each == 0 {
		*each = max(1, total/4)
	}
	if *each < 1 || *each > total {
		c.problem(eachPath, "%d: want 1 to %d", *each, total)
	}
}

func (c *checker) auth(path string, a *Auth) {
	c.path(&a.HTPasswd)
	ways := 0
	for _, given := range [...]bool{a.None, a.HTPasswd != "", a.ECR} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		c.problem(path, "none, htpasswd and ecr exclude each other")
	}
	c.oneOf(path+".onOutage", a.OnOutage, []string{"", "deny", "known"})
	if a.OnOutage != "" && !a.ECR {
		c.problem(path+".onOutage", "is for ecr: true")
	}
	if a.Insecure && !a.credentials() {
		c.problem(path+".insecure", "is for htpasswd and ecr: there are no credentials to send")
	}
}

// access checks who may pull from a mirror, by its own auth or the top-level one.
func (c *checker) access(path string, cfg *Config, m *Mirror, certificates bool) {
	at := "auth"
	if m.Auth != nil {
		at = path + ".auth"
		c.auth(at, m.Auth)
	}
	a := cfg.AuthOf(m)
	if a.ECR && m.Source.Registry != "" && !m.Source.IsECR() && (m.Destination == nil || !m.Destination.IsECR()) {
		c.problem(at+".ecr", "neither source nor destination of %s is ECR: nobody could tell whose token is good", path)
	}
	if loopback(cfg.Listen) {
		return
	}
	if a.credentials() && cfg.TLS == nil && !a.Insecure && !c.clearSaid[at] {
		c.clearSaid[at] = true
		c.problem(at, "credentials come over plain HTTP to %s, which is not loopback: set tls, or say insecure: true", cfg.Listen)
	}
	if !a.None && !a.credentials() && !certificates && !c.openSaid {
		c.openSaid = true
		c.problem("listen", "%s is not loopback and clients need no credentials: set auth or tls.clientCA, or say auth: {none: true}", cfg.Listen)
	}
}

func (c *checker) mirror(path string, m *Mirror) {
	if !c.given(path + ".source") {
		c.problem(path+".source", "required")
	} else {
		c.registry(path+".source", &m.Source)
	}
	if m.Destination != nil {
		c.registry(path+".destination", m.Destination)
		if m.Destination.Registry != "" && m.Destination.Host() == m.Source.Host() {
			c.problem(path+".destination.registry", "the same registry as source")
		}
	}
	for i, name := range m.Names {
		if m.Names[i] = strings.ToLower(name); !validHost(m.Names[i]) {
			c.problem(fmt.Sprintf("%s.names[%d]", path, i), "%q is not a host or host:port", name)
		}
	}
	if len(m.Names) == 0 {
		if c.given(path + ".names") {
			c.problem(path+".names", "empty: name a host or leave it out")
		}
		for _, r := range []*Registry{&m.Source, m.Destination} {
			if r != nil && r.Registry != "" {
				m.Names = append(m.Names, r.Host())
			}
		}
	}
	c.oneOf(path+".tags.authority", m.Tags.Authority, []string{"source", "destination"})
	if m.Tags.Authority == "destination" && m.Destination == nil {
		c.problem(path+".tags.authority", "destination, but the mirror has none")
	}
	if m.Tags.TTL == 0 {
		m.Tags.TTL = -1
	}
	if m.Tags.StaleFor == 0 {
		m.Tags.StaleFor = -1
	}
	c.oneOf(path+".blobs", m.Blobs, []string{"proxy", "redirect"})
	if m.Blobs == "redirect" && (m.Destination == nil || m.Destination.Registry != "" && !m.Destination.IsECR()) {
		c.problem(path+".blobs", "redirect, but there is no ECR destination to redirect to")
	}
	if m.Events.SQS != "" {
		c.url(path+".events.sqs", m.Events.SQS, m.Source.Insecure)
	}
	if m.Events.Shared && m.Events.SQS == "" {
		c.problem(path+".events.shared", "there is no sqs to share")
	}
	if m.Events.Webhook != nil {
		c.webhook(path+".events.webhook", m.Events.Webhook)
	}
	c.replication(path+".replication", m)
}

func (c *checker) webhook(path string, w *Webhook) {
	switch {
	case w.Path == "":
		c.problem(path+".path", "required")
	case !hookPath.MatchString(w.Path):
		c.problem(path+".path", "%q is not a path like /events", w.Path)
	case w.Path == "/v2" || strings.HasPrefix(w.Path, "/v2/"):
		c.problem(path+".path", "%s is within the registry's /v2/", w.Path)
	}
	if w.TokenFile == "" {
		c.problem(path+".tokenFile", "required")
	}
	c.path(&w.TokenFile)
}

// hookPath has nothing that a client or a proxy would write in another way.
var hookPath = regexp.MustCompile(`^(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$`)

// joined reports the problems that package rules found, each of which starts with its path under ours.
func (c *checker) joined(path string, err error) {
	if err == nil {
		return
	}
	for _, line := range strings.Split(err.Error(), "\n") {
		under, text, _ := strings.Cut(line, ": ")
		c.problem(path+"."+under, "%s", text)
	}
}

func (c *checker) listen(path, addr string) {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && host != "" && !validHost(strings.TrimSuffix(addr, ":"+port)) && net.ParseIP(host) == nil {
		err = fmt.Errorf("host %q", host)
	}
	if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 0 || n >= 1<<16 {
		c.problem(path, "%q is not host:port", addr)
	}
}

func (c *checker) unique(path, value string, seen map[string]string) {
	if first, ok := seen[value]; ok {
		c.problem(path, "%s is already that of %s", value, first)
		return
	}
	seen[value] = path
}

// oneOf checks a choice; those that are not built yet are named as such.
func (c *checker) oneOf(path, value string, choices []string, notBuilt ...string) {
	switch {
	case slices.Contains(choices, value):
	case slices.Contains(notBuilt, value):
		c.problem(path, "%s: %s", value, notYet)
	default:
		known := slices.DeleteFunc(slices.Clone(choices), func(s string) bool { return s == "" })
		c.problem(path, "%q: want %s", value, strings.Join(known, " or "))
	}
}

// path makes relative paths start at the configuration's directory.
func (c *checker) path(paths ...*string) {
	for _, p := range paths {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(c.dir, *p)
		}
	}
}
