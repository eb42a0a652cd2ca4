package remote_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

const user, password = "robot", "s3cr3t-and-more"

func basic(p string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+p))
}

// wantBasic has f demand password, which may change.
func wantBasic(f *fake, password *string) {
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == basic(*password) {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestSuiteWithBasic(t *testing.T) {
	p := password
	registrytest.Run(t, func(t *testing.T) registrytest.Subject {
		f := newFake(t)
		wantBasic(f, &p)
		r := f.open(t, remote.Options{Username: user, Password: password})
		return registrytest.Subject{Reader: r, Writer: r, Lister: r}
	})
}

func TestBasic(t *testing.T) {
	f := newFake(t)
	registrytest.Push(t, f.Registry, "app", "v1", registrytest.Image(1, 10))
	current := password
	wantBasic(f, &current)
	file := filepath.Join(t.TempDir(), "password")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(password + "\n")
	r := f.open(t, remote.Options{Username: user, PasswordFile: file})
	const head = "HEAD /v2/app/manifests/v1"
	for _, step := range []struct {
		what string
		do   func()
		ok   bool
		want []string
	}{
		{"first", func() {}, true, []string{head, head}},
		{"remembered", func() {}, true, []string{head}},
		{"rotated", func() { current = "next"; write("next") }, true, []string{head, head}},
		{"revoked: asked once more, not again", func() { current = "other" }, false, []string{head, head}},
		{"file gone", func() { os.Remove(file) }, false, []string{head}},
		{"file empty", func() { write("\n") }, false, []string{head}},
	} {
		step.do()
		_, err := r.Resolve(t.Context(), "app", "v1")
		if (err == nil) != step.ok || err != nil && !errors.Is(err, registry.Denied) {
			t.Errorf("%s: %v", step.what, err)
		}
		if diff := cmp.Diff(step.want, f.seen()); diff != "" {
			t.Errorf("%s: requests (-want +got):\n%s", step.what, diff)
		}
	}
	if _, err := f.open(t, remote.Options{}).Resolve(t.Context(), "app", "v1"); !errors.Is(err, registry.Denied) {
		t.Errorf("anonymous: %v", err)
	}
}

// tokens is a token service on a host of its own.
type tokens struct {
	srv    *httptest.Server
	status int // if set, all it answers

	mu    sync.Mutex
	asked []string // "user scope scope"
	valid string
}

func newTokens(t *testing.T) *tokens {
	s := &tokens{}
	s.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		who, p, _ := r.BasicAuth()
		s.asked = append(s.asked, strings.Join(append([]string{who}, r.URL.Query()["scope"]...), " "))
		if s.status != 0 {
			w.WriteHeader(s.status)
			return
		}
		if p != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s.valid = fmt.Sprintf("token-%d", len(s.asked))
		fmt.Fprintf(w, `{"token":%q}`, s.valid)
	}))
	t.Cleanup(s.srv.Close)
	return s
}

func (s *tokens) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.asked
	s.asked = nil
	return out
}

func (s *tokens) guard(f *fake) {
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.valid != "" && r.Header.Get("Authorization") == "Bearer "+s.valid {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry"`, s.srv.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestBearer(t *testing.T) {
	f, s := newFake(t), newTokens(t)
	image := registrytest.Image(1, 10)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	s.guard(f)
	r := f.open(t, remote.Options{Username: user, Password: password})
	const pull, push = user + " repository:app:pull", user + " repository:app:pull,push"
	stat := func() error { _, err := r.Stat(t.Context(), image.Objects("app")[0]); return err }
	for _, step := range []struct {
		what     string
		do       func() error
		class    registry.Class // Internal: success
		tokens   []string
		requests int
	}{
		{"first", stat, 0, []string{pull}, 2},
		{"remembered", stat, 0, nil, 1},
		{"expired", func() error { s.valid = "another"; return stat() }, 0, []string{pull}, 2},
		{"push needs another scope", func() error {
			return r.PutManifest(t.Context(), "app", "v2", image.Desc, image.Body)
		}, 0, []string{push}, 2},
		{"token service refuses", func() error { s.valid, s.status = "", 401; return stat() }, registry.Denied, []string{pull}, 1},
		{"token service throttles", func() error { s.status = 429; return stat() }, registry.Throttled, []string{pull}, 1},
		{"token service is broken", func() error { s.status = 500; return stat() }, registry.Unavailable, []string{pull}, 1},
		{"well again", func() error { s.status = 0; return stat() }, 0, []string{pull}, 2},
	} {
		err := step.do()
		if (err == nil) != (step.class == 0) || err != nil && registry.ClassOf(err) != step.class {
			t.Errorf("%s: %v", step.what, err)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%s: the password is in %q", step.what, err)
		}
		if diff := cmp.Diff(step.tokens, s.take()); diff != "" {
			t.Errorf("%s: tokens (-want +got):\n%s", step.what, diff)
		}
		if n := len(f.seen()); n != step.requests {
			t.Errorf("%s: %d requests, want %d", step.what, n, step.requests)
		}
	}
}

func TestSuiteWithBearer(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Subject {
		f, s := newFake(t), newTokens(t)
		// Any token of the service will do: several scopes are in use at once.
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer token-") {
				return false
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry"`, s.srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		r := f.open(t, remote.Options{Username: user, Password: password})
		return registrytest.Subject{Reader: r, Writer: r, Lister: r}
	})
}

// A realm that no honest registry names gets no password.
func TestForgedRealm(t *testing.T) {
	for _, realm := range []string{"http://169.254.169.254/latest", "http://10.0.0.1/", "file:///etc/passwd", "http://[fe80::1]/", "://"} {
		f := newFake(t)
		dials := 0
		tr := http.DefaultTransport.(*http.Transport).Clone()
		t.Cleanup(tr.CloseIdleConnections)
		count := roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host != host(f.srv.URL) {
				dials++
				return nil, errors.New("must not be asked")
			}
			return tr.RoundTrip(r)
		})
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q`, realm))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		r := f.open(t, remote.Options{Username: user, Password: password, Transport: count})
		_, err := r.Resolve(t.Context(), "app", "v1")
		if err == nil || dials != 0 || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v, %d requests", realm, err, dials)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Redirects of a blob are followed; the credential stays behind, even when the other side asks for it.
func TestRedirect(t *testing.T) {
	for _, kind := range []string{"basic", "bearer"} {
		t.Run(kind, func(t *testing.T) {
			f, s := newFake(t), newTokens(t)
			image := registrytest.Image(1, 1000)
			registrytest.Push(t, f.Registry, "app", "v1", image)
			p := password
			if wantBasic(f, &p); kind == "bearer" {
				s.guard(f)
			}
			guard := f.answer
			status := http.StatusOK
			var seen []http.Header
			elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = append(seen, r.Header.Clone())
				if status != http.StatusOK {
					w.Header().Set("WWW-Authenticate", `Basic realm="give"`)
					w.WriteHeader(status)
					return
				}
				w.Header().Set("Content-Range", "bytes 10-19/1000")
				w.WriteHeader(http.StatusPartialContent)
				w.Write(image.Blobs[1].Body[10:20])
			}))
			defer elsewhere.Close()
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if guard(w, r) {
					return true
				}
				http.Redirect(w, r, elsewhere.URL+"/x?X-Amz-Signature=presigned", http.StatusTemporaryRedirect)
				return true
			}
			r := f.open(t, remote.Options{Username: user, Password: password})
			o := image.Objects("app")[1]
			c, err := r.Open(t.Context(), o, registry.Range{Offset: 10, Length: 10})
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(c)
			c.Close()
			if err != nil || string(b) != string(image.Blobs[1].Body[10:20]) {
				t.Errorf("read %d bytes, %v", len(b), err)
			}
			// What the store says does not speak for the registry: neither absence nor denial.
			for _, status = range []int{401, 403, 404, 400, 500} {
				if _, err := r.Open(t.Context(), o, registry.Range{Offset: 10, Length: 10}); !errors.Is(err, registry.Unavailable) || strings.Contains(err.Error(), "presigned") {
					t.Errorf("%d elsewhere: %v, want Unavailable", status, err)
				}
			}
			if status = 416; true {
				if _, err := r.Open(t.Context(), o, registry.Range{Offset: 1000, Length: 10}); !errors.Is(err, registry.Invalid) {
					t.Errorf("416 elsewhere: %v, want Invalid", err)
				}
			}
			if len(seen) != 8 { // the URL that was known is refused once, then it is a fresh one each time
				t.Errorf("%d requests elsewhere, want 8", len(seen))
			}
			for i, h := range seen {
				if h.Get("Authorization") != "" || h.Get("Referer") != "" || h.Get("Range") == "" {
					t.Errorf("request %d elsewhere: %v", i, h)
				}
			}
		})
	}
}

func TestRedirectRefused(t *testing.T) {
	hops := func(n *int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			*n++
			http.Redirect(w, r, fmt.Sprintf("/hop/%d", *n), http.StatusFound)
			return true
		}
	}
	f := newFake(t)
	image := registrytest.Image(1, 10)
	n := 0
	f.answer = hops(&n)
	r := f.open(t, remote.Options{})
	if _, err := r.Stat(t.Context(), image.Objects("app")[0]); !errors.Is(err, registry.Unavailable) || n != 6 {
		t.Errorf("a redirect to itself: %v after %d requests", err, n)
	}
	for _, to := range []string{"ftp://x.example/", "http://user:pass@x.example/", "http://x.example:bad/"} {
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
			return true
		}
		if _, err := r.Stat(t.Context(), image.Objects("app")[0]); !errors.Is(err, registry.Unavailable) {
			t.Errorf("to %s: %v", to, err)
		}
	}
	// From https to plain http.
	asked := 0
	tls := open(t, remote.Options{Registry: "registry.example", Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		asked++
		return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"http://registry.example/x"}}, Body: http.NoBody, Request: r}, nil
	})})
	if _, err := tls.Stat(t.Context(), image.Objects("app")[0]); !errors.Is(err, registry.Unavailable) || asked != 1 {
		t.Errorf("https to http: %v, %d requests", err, asked)
	}
	// What is pushed is not sent elsewhere.
	other := newFake(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, other.srv.URL+"/v2/app/manifests/v1", http.StatusTemporaryRedirect)
		return true
	}
	if err := r.PutManifest(context.Background(), "app", "v1", image.Desc, image.Body); err == nil || len(other.seen()) != 0 {
		t.Errorf("a manifest was sent elsewhere: %v", err)
	}
}
