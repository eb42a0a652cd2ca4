// Package clientconfig knows how container clients are told of a mirror: which file, what to write into it beside what others
// wrote, what to take out again, and where a client does not do what its configuration seems to say.
//
// What clients read, and the traps, is documented by their own projects and was read in their sources; each file of this
// package names where.
//
// # Limitations
//
// Text is inserted between marks, so comments and order of a TOML file stay; JSON and YAML files are written anew with their
// keys kept. No client is restarted. Windows is not supported.
package clientconfig

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/distribution/reference"
)

// Mirror is what clients are to be told.
type Mirror struct {
	URL        string   // http://127.0.0.1:5000: scheme and host, without a path
	Registries []string // hosts, with a port if they have one, whose images it serves
	CA         string   // file of the authority of its certificate, as the client finds it; "": the system's
	PullOnly   bool     // tags are resolved by the registry itself, only content comes from the mirror (containerd)
	Referrers  bool     // also referrers: containerd 2.2 and later (older ones refuse the file)
}

var domain = regexp.MustCompile(`^(?:` + reference.DomainRegexp.String() + `)$`)

// Check returns what is wrong with m.
func (m Mirror) Check() error {
	u, err := url.Parse(m.URL)
	var errs []error
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || !domain.MatchString(u.Host) || m.url() != u.Scheme+"://"+u.Host {
		errs = append(errs, fmt.Errorf("mirror %q: want http://HOST:PORT or https://HOST:PORT", m.URL))
	}
	if len(m.Registries) == 0 {
		errs = append(errs, errors.New("no registry: name the hosts whose images the mirror serves"))
	}
	for _, r := range m.Registries {
		if !domain.MatchString(r) {
			errs = append(errs, fmt.Errorf("registry %q: want a host or host:port", r))
		}
	}
	if strings.ContainsAny(m.CA, "\n\r\x00") {
		errs = append(errs, errors.New("ca: not the name of a file"))
	}
	return errors.Join(errs...)
}

// url is the URL without a slash at its end; host is its host:port.
func (m Mirror) url() string { return strings.TrimSuffix(m.URL, "/") }

func (m Mirror) host() string { _, host, _ := strings.Cut(m.url(), "://"); return host }

func (m Mirror) plain() bool { return strings.HasPrefix(m.URL, "http://") }

// local reports whether the mirror is on the client's own machine.
func (m Mirror) local() bool {
	name := m.host()
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	return name == "localhost" || net.ParseIP(strings.Trim(name, "[]")).IsLoopback()
}

// File is a file of a client's, and what the mirror means to it.
type File struct {
	Path string // absolute
	// Add returns old with the mirror in it; of a mirror that is in it already, old. nil is no file.
	Add func(old []byte) ([]byte, error)
	// Remove returns old without it; nothing at all is nil.
	Remove func(old []byte) ([]byte, error)
}

// Content is what is to be in a file.
type Content struct {
	Path string `json:"path,omitempty"` // none: for people to place
	Text string `json:"text"`
}

// Contents returns what is to be in c's files, or the text that people place.
func (c Client) Contents(m Mirror) ([]Content, error) {
	if c.Text != nil {
		return []Content{{Text: c.Text(m)}}, nil
	}
	all := []Content{}
	for _, f := range c.Files(m) {
		text, err := f.Add(nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		all = append(all, Content{f.Path, string(text)})
	}
	return all, nil
}

// Client is a kind of client.
type Client struct {
	Name, About string
	// Files are what is to be written; of a client without any, Text is for people to place.
	Files func(Mirror) []File
	Text  func(Mirror) string
	// Dir is the directory of the files, of a client that reads them at every pull. Others cannot be held.
	Dir string
	// Traps say where the client does not do what one would expect of m.
	Traps func(m Mirror) []string
	// Examine says what in the client's own configuration under root, where / is, keeps it from reading the files; nil: unknown.
	Examine func(root string) ([]string, error)
}

// Clients returns all that are known.
func Clients() []Client {
	return []Client{containerd(), docker(), dockerHub(), podman(), buildkit(), k3s(), soci(), nodeadm(), bottlerocket()}
}

// everywhere are traps of no client in particular.
func everywhere() []string {
	return []string{
		"EKS Auto Mode and Fargate have no place to configure a mirror: only a copy in the region's own registry helps there.",
		"The SOCI snapshotter's parallel pull (EKS: FastImagePull) asks the registry of the image's name for layers, past every mirror.",
	}
}

// Warnings returns what is to be known of c beyond its files.
func (c Client) Warnings(m Mirror) []string { return append(c.Traps(m), everywhere()...) }
