package parity

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/sirupsen/logrus"

	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// servers are Distribution and the front, with the same content.
type servers struct{ distribution, front string }

func start(t *testing.T, repo, tag string, images ...registrytest.Node) servers {
	t.Helper()
	logrus.SetOutput(io.Discard)
	config := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil, "delete": {"enabled": true}}}
	config.Catalog.MaxEntries = 1000
	config.HTTP.Secret = "of no use"
	ctx, cancel := context.WithCancel(context.Background())
	app := httptest.NewServer(handlers.NewApp(ctx, config))
	t.Cleanup(func() { app.Close(); cancel() })
	ours := mem.New()
	front := httptest.NewServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{"registry.example"}, Reader: ours, Lister: ours}}}))
	t.Cleanup(front.Close)
	theirs, err := remote.New(remote.Options{Registry: app.URL})
	if err != nil {
		t.Fatal(err)
	}
	for i, img := range images {
		at := ""
		if tag != "" {
			at = fmt.Sprint(tag, i+1)
		}
		registrytest.Push(t, ours, repo, at, img)
		registrytest.Push(t, theirs, repo, at, img)
	}
	return servers{app.URL, front.URL}
}

// reply is what a server answers, as far as it is comparable.
type reply struct {
	status int
	header http.Header
	body   string // of an error in JSON: its codes
	codes  bool
}

func ask(t *testing.T, base, method, path string, header http.Header) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(body)}
	var e struct {
		Errors []struct{ Code string }
	}
	if r.status >= 400 && json.Unmarshal(body, &e) == nil && len(e.Errors) > 0 {
		r.body, r.codes = "", true
		for _, one := range e.Errors {
			r.body += one.Code + " "
		}
	}
	if r.status >= 400 {
		resp.Header.Del("Content-Length") // messages differ, and of HEAD's errors only Distribution tells a length
	}
	return r
}

// everywhere are differences of no single request: a header, and why it is not Distribution's.
var everywhere = map[string]string{
	"X-Content-Type-Options": "ours is nosniff on every answer, Distribution's on none",
	"Cache-Control":          "Distribution lets caches keep blobs for a year; one between a client and us would answer past authentication",
	"Accept-Ranges":          "ours is on a blob's errors too",
}

// differences says in what two replies differ, Distribution's first: the status, or the names of headers and the body or its
// codes.
func differences(a, b reply) []string {
	if a.status != b.status { // the rest follows from it
		return []string{strings.TrimSpace(fmt.Sprintf("status %d, %d %s", a.status, b.status, map[bool]string{true: b.body}[b.codes]))}
	}
	var all []string
	names := maps.Clone(a.header)
	maps.Copy(names, b.header)
	for _, n := range slices.Sorted(maps.Keys(names)) {
		if everywhere[n] == "" && !slices.Equal(a.header.Values(n), b.header.Values(n)) {
			all = append(all, n)
		}
	}
	switch {
	case a.body == b.body:
	case a.codes || b.codes:
		all = append(all, fmt.Sprintf("body %.24s, %.24s", strings.TrimSpace(a.body), strings.TrimSpace(b.body)))
	default:
		all = append(all, "body")
	}
	return all
}

// TestParity sends every request to both and wants no difference but those that are listed, and all of these.
func TestParity(t *testing.T) {
	image := registrytest.Image(1, 1000, 300<<10)
	index := registrytest.Index(registrytest.Image(2, 100), registrytest.Image(3, 100))
	s := start(t, "team/app", "v", image, index)
	blob, man, ix := "/v2/team/app/blobs/", "/v2/team/app/manifests/", index.Desc.Digest.String()
	large, small := blob+image.Blobs[2].Desc.Digest.String(), blob+image.Blobs[1].Desc.Digest.String()
	absent := digest.FromString("absent").String()
	size := len(image.Blobs[2].Body)
	accept := http.Header{"Accept": {image.Desc.MediaType, index.Desc.MediaType}}
	rng := func(v string) http.Header { return http.Header{"Range": {v}} }
	n := strconv.Itoa

	for _, c := range []struct {
		name, method, path string
		header             http.Header
		differs            []string // as differences says it
		because            string
	}{
		{name: "base", path: "/v2/"},
		{name: "manifest by tag", path: man + "v1", header: accept},
		{name: "manifest by digest", path: man + image.Desc.Digest.String(), header: accept},
		{name: "manifest, HEAD", method: "HEAD", path: man + "v1", header: accept},
		{name: "index by tag", path: man + "v2", header: accept},
		{name: "index by digest, HEAD", method: "HEAD", path: man + ix, header: accept},
		{name: "manifest, no Accept", path: man + "v1", because: "Accept does not choose among media types of one digest: rule M4",
			differs: []string{"status 404, 200"}},
		{name: "manifest, If-None-Match", path: man + "v1", header: http.Header{"Accept": accept["Accept"], "If-None-Match": {`"` + image.Desc.Digest.String() + `"`}}, because: "a 304 fails pulls of containerd: rule M2",
			differs: []string{"status 304, 200"}},
		{name: "absent tag", path: man + "v9", header: accept},
		{name: "absent tag, HEAD", method: "HEAD", path: man + "v9", header: accept},
		{name: "absent manifest", path: man + absent, header: accept},
		{name: "absent repository", path: "/v2/nobody/manifests/v1", header: accept, because: "the specification has a code for it, which oras tells from the other",
			differs: []string{"body MANIFEST_UNKNOWN, NAME_UNKNOWN"}},
		{name: "bad digest", path: man + "sha256:12", header: accept},
		{name: "blob", path: large},
		{name: "small blob", path: small},
		{name: "blob, HEAD", method: "HEAD", path: large},
		{name: "absent blob", path: blob + absent},
		{name: "absent blob, HEAD", method: "HEAD", path: blob + absent},
		{name: "blob of an absent repository", path: "/v2/nobody/blobs/" + absent, because: "the same",
			differs: []string{"body BLOB_UNKNOWN, NAME_UNKNOWN"}},
		{name: "manifest as a blob", path: blob + image.Desc.Digest.String()},
		{name: "range", path: large, header: rng("bytes=10-19")},
		{name: "open range", path: large, header: rng("bytes=1000-")},
		{name: "range from 0", path: large, header: rng("bytes=0-")},
		{name: "suffix", path: large, header: rng("bytes=-7")},
		{name: "range past the end", path: large, header: rng("bytes=10-" + n(size+10))},
		{name: "range after the end", path: large, header: rng("bytes=" + n(size) + "-"), because: "errors are JSON, and name no content",
			differs: []string{"Content-Type", "Docker-Content-Digest", "body invalid range: failed to, RANGE_INVALID"}},
		{name: "several ranges", path: large, header: rng("bytes=0-1,5-6"), because: "who asks for several then asks for one at a time: rule B2",
			differs: []string{"status 206, 400 UNKNOWN"}},
		{name: "malformed range", path: large, header: rng("bytes=5-2"), because: "RFC 9110, section 14.2: it is ignored",
			differs: []string{"status 416, 200"}},
		{name: "unknown unit", path: large, header: rng("pages=1-2"), because: "the same",
			differs: []string{"status 416, 200"}},
		{name: "tags", path: "/v2/team/app/tags/list"},
		{name: "tags, a page", path: "/v2/team/app/tags/list?n=1"},
		{name: "tags, the last page", path: "/v2/team/app/tags/list?n=1&last=v1", because: "there is no next page",
			differs: []string{"Link"}},
		{name: "tags, none", path: "/v2/team/app/tags/list?n=0"},
		{name: "tags, a bad n", path: "/v2/team/app/tags/list?n=-1"},
		{name: "tags of an absent repository", path: "/v2/nobody/tags/list"},
		{name: "referrers", path: "/v2/team/app/referrers/" + ix, because: "Distribution has no referrers",
			differs: []string{"status 404, 200"}},
		{name: "catalog", path: "/v2/_catalog", because: "a mirror does not know what its upstreams have",
			differs: []string{"status 200, 405 UNSUPPORTED"}},
		{name: "bad name", path: "/v2/Team/APP/manifests/v1", header: accept, because: "the code says what is wrong",
			differs: []string{"status 404, 400 NAME_INVALID"}},
		{name: "push", method: "POST", path: "/v2/team/app/blobs/uploads/", because: "a mirror is read-only",
			differs: []string{"status 202, 405 UNSUPPORTED"}},
		{name: "delete a manifest", method: "DELETE", path: man + absent, because: "a mirror is read-only",
			differs: []string{"status 404, 405 UNSUPPORTED"}},
		{name: "delete a blob", method: "DELETE", path: blob + absent, because: "a mirror is read-only",
			differs: []string{"status 404, 405 UNSUPPORTED"}},
		{name: "POST to a manifest", method: "POST", path: man + "v1", because: "errors are JSON, and Allow names what is served",
			differs: []string{"Allow", "Content-Type", "body Method not allowed, UNSUPPORTED"}},
		{name: "unknown path", path: "/v2/team/app/other/v1", because: "errors are JSON",
			differs: []string{"Content-Type", "body 404 page not found, UNKNOWN"}},
	} {
		if c.method == "" {
			c.method = "GET"
		}
		got := differences(ask(t, s.distribution, c.method, c.path, c.header), ask(t, s.front, c.method, c.path, c.header))
		if d := cmp.Diff(c.differs, got); d != "" && len(c.differs)+len(got) > 0 {
			t.Errorf("%s (-listed +found):\n%s", c.name, d)
		}
		if (len(c.differs) > 0) != (c.because != "") {
			t.Errorf("%s: differences want a reason", c.name)
		}
	}
}
