package remote_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// fake is a registry over HTTP with its content in memory. It records requests, and answers otherwise where it is told to.
type fake struct {
	*mem.Registry
	srv *httptest.Server
	// answer, if set, may answer a request itself: then it returns true.
	answer func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []string // "GET /v2/… Range"
	headers  []http.Header
}

func newFake(t testing.TB) *fake {
	f := &fake{Registry: mem.New()}
	f.srv = httptest.NewServer(f)
	t.Cleanup(f.srv.Close)
	return f
}

// open returns a Registry for the fake.
func (f *fake) open(t testing.TB, o remote.Options) *remote.Registry {
	t.Helper()
	o.Registry = f.srv.URL
	return open(t, o)
}

func open(t testing.TB, o remote.Options) *remote.Registry {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	r, err := remote.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.CloseIdleConnections)
	return r
}

// seen returns the requests so far, digests shortened, and forgets them.
func (f *fake) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.requests
	f.requests, f.headers = nil, nil
	return out
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method + " " + r.URL.RequestURI()
	if before, after, ok := strings.Cut(line, "sha256:"); ok && len(after) >= 64 {
		line = before + after[:6] + after[64:]
	}
	if rg := r.Header.Get("Range"); rg != "" {
		line += " " + rg
	}
	f.mu.Lock()
	f.requests, f.headers = append(f.requests, line), append(f.headers, r.Header.Clone())
	answer := f.answer
	f.mu.Unlock()
	if answer != nil && answer(w, r) {
		return
	}
	if err := f.serve(w, r); err != nil {
		wire.WriteError(w, r, wire.Status(err), err)
	}
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) error {
	q, err := wire.Parse(r.URL)
	if err != nil {
		return err
	}
	switch q.Endpoint {
	case wire.Manifest:
		return f.manifest(w, r, q)
	case wire.Blob:
		c, err := f.Open(r.Context(), registry.Object{Repo: q.Name, Digest: q.Digest}, registry.Whole)
		if err != nil {
			return err
		}
		return f.content(w, r, c)
	case wire.Uploads:
		return f.upload(w, r, q)
	case wire.Tags:
		return f.tags(w, r, q)
	case wire.Referrers:
		return f.referrers(w, r, q)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

func (f *fake) manifest(w http.ResponseWriter, r *http.Request, q wire.Request) error {
	switch r.Method {
	case http.MethodPut:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		d := registry.DescriptorOf(r.Header.Get("Content-Type"), body)
		if q.Digest != "" && q.Digest != d.Digest {
			return registry.Errorf(registry.Invalid, "digest")
		}
		if err := f.PutManifest(r.Context(), q.Name, q.Tag, d, body); err != nil {
			return err
		}
		w.Header().Set("Docker-Content-Digest", d.Digest.String())
		w.WriteHeader(http.StatusCreated)
		return nil
	case http.MethodDelete:
		w.WriteHeader(http.StatusAccepted)
		return f.DeleteManifest(r.Context(), q.Name, q.Digest)
	}
	if q.Tag != "" {
		d, err := f.Resolve(r.Context(), q.Name, q.Tag)
		if err != nil {
			return err
		}
		q.Digest = d.Digest
	}
	c, err := f.Open(r.Context(), registry.Object{Repo: q.Name, Kind: registry.Manifest, Digest: q.Digest}, registry.Whole)
	if err != nil {
		return err
	}
	w.Header().Set("Docker-Content-Digest", q.Digest.String())
	return f.content(w, r, c)
}

func (f *fake) content(w http.ResponseWriter, r *http.Request, c *registry.Content) error {
	defer c.Close()
	body, err := io.ReadAll(c)
	w.Header().Set("Content-Type", c.Descriptor.MediaType)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	return err
}

func (f *fake) upload(w http.ResponseWriter, r *http.Request, q wire.Request) error {
	switch r.Method {
	case http.MethodPost:
		if m := r.URL.Query().Get("mount"); m != "" {
			if ok, err := f.Mount(r.Context(), registry.Object{Repo: q.Name, Digest: digest.Digest(m)}, r.URL.Query().Get("from")); ok || err != nil {
				w.WriteHeader(http.StatusCreated)
				return err
			}
		}
		if f.StrictRepos {
			if _, err := f.Resolve(r.Context(), q.Name, "any"); registry.CodeOf(err) == registry.CodeNameUnknown {
				return err
			}
		}
		w.Header().Set("Location", "/v2/"+q.Name+"/blobs/uploads/session?state=s")
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		d := registry.Descriptor{Digest: digest.Digest(r.URL.Query().Get("digest")), Size: r.ContentLength}
		if r.URL.Query().Get("state") != "s" {
			return registry.Errorf(registry.Invalid, "the query of the location was lost")
		}
		if err := f.PutBlob(r.Context(), q.Name, d, r.Body); err != nil {
			e := registry.Errorf(registry.Invalid, "upload: %w", err)
			e.Code = registry.CodeDigestInvalid
			return e
		}
		w.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

func (f *fake) tags(w http.ResponseWriter, r *http.Request, q wire.Request) error {
	page := struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{Name: q.Name}
	for tag, err := range f.Tags(r.Context(), q.Name) {
		if err != nil {
			return err
		}
		if tag <= q.Last {
			continue
		}
		if len(page.Tags) == 2 { // a page here is two, whatever n says
			w.Header().Set("Link", fmt.Sprintf("<%s>; rel=\"next\"", wire.TagsPath(q.Name, q.N, page.Tags[1])))
			break
		}
		page.Tags = append(page.Tags, tag)
	}
	return json.NewEncoder(w).Encode(page)
}

func (f *fake) referrers(w http.ResponseWriter, r *http.Request, q wire.Request) error {
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []registry.Descriptor{}}
	for d, err := range f.Referrers(r.Context(), q.Name, q.Digest, "") { // the filter is left to the client
		if err != nil {
			return err
		}
		ix.Manifests = append(ix.Manifests, d)
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	return json.NewEncoder(w).Encode(ix)
}

func host(rawURL string) string {
	u, _ := url.Parse(rawURL)
	return u.Host
}

func isManifest(r *http.Request) bool { return strings.Contains(r.URL.Path, "/manifests/") }

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
