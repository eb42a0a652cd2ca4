package serve_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// fakeECR answers token checks as ECR does, in memory, and notes who was asked what with which token.
type fakeECR struct {
	mu    sync.Mutex
	asked []string
	down  func() // called instead of an answer
}

func (f *fakeECR) RoundTrip(r *http.Request) (*http.Response, error) {
	_, token, _ := r.BasicAuth()
	f.mu.Lock()
	f.asked = append(f.asked, r.URL.Host+" "+r.URL.Path+" "+token[:min(4, len(token))])
	down := f.down
	f.mu.Unlock()
	if down != nil {
		down()
		return nil, http.ErrHandlerTimeout
	}
	rec := httptest.NewRecorder()
	refuse := func(status int, code, message string) {
		rec.WriteHeader(status)
		fmt.Fprintf(rec, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
	}
	switch {
	case strings.HasPrefix(token, "bad"):
		rec.Header().Set("Www-Authenticate", "Basic")
		http.Error(rec, "Not Authorized", http.StatusUnauthorized)
	case strings.HasPrefix(token, "old"):
		refuse(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
	case strings.HasPrefix(token, "far"):
		refuse(400, "UNSUPPORTED", "Invalid authorization token")
	case strings.HasPrefix(r.URL.Path, "/v2/secret/"):
		refuse(403, "DENIED", "User: arn:aws:iam::111122223333:user/x is not authorized to perform: ecr:BatchGetImage on resource")
	case strings.HasPrefix(r.URL.Path, "/v2/nowhere/"):
		refuse(404, "NAME_UNKNOWN", "The repository with name 'nowhere' does not exist")
	case strings.HasSuffix(r.URL.Path, "/v9"):
		refuse(404, "MANIFEST_UNKNOWN", "Requested image not found")
	case strings.Contains(r.URL.Path, "/blobs/"):
		rec.Header().Set("Location", "https://elsewhere.example/layer?X-Amz-Signature=s3cret")
		rec.WriteHeader(307)
	case strings.HasPrefix(token, "busy"):
		refuse(429, "TOOMANYREQUESTS", "Rate exceeded")
	default:
		rec.WriteHeader(200)
	}
	res := rec.Result()
	res.Request = r
	return res, nil
}

func (f *fakeECR) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := f.asked
	f.asked = nil
	return got
}

const near = "111122223333.dkr.ecr.eu-central-1.amazonaws.com" // the destination

// token is one that says when it expires, as ECR's do.
func token(kind string, expires time.Time) string {
	return kind + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"payload":"x","expiration":%d}`, expires.Unix()))
}

func newECRAuth(f *fakeECR, known bool) *serve.ECRAuth {
	return serve.NewECRAuth("m", serve.ECRAuthOptions{Known: known, Transport: f,
		Registries: []serve.ECRRegistry{{Host: near, URL: "https://" + near}, {Host: source, URL: "https://" + source}}})
}

// TestECRToken is what a token is good for, and to whom it is shown.
func TestECRToken(t *testing.T) {
	f := new(fakeECR)
	w := newWorld(t, func(o *serve.Options) {
		o.Mirrors[0].Auth = newECRAuth(f, false)
		o.Mirrors[0].Names = append(o.Mirrors[0].Names, near)
	})
	blob := w.small.Desc.Digest.String()
	for _, c := range []struct {
		name, user, token, path string
		status                  int
		asked                   []string
	}{
		{"no credential", "", "", "/v2/", 401, nil},
		{"no credential for a manifest", "", "", "/v2/app/manifests/v1", 401, nil},
		{"another user", "alice", "good", "/v2/app/manifests/v1", 401, nil},
		{"no token", "AWS", "", "/v2/app/manifests/v1", 401, nil},
		{"a huge token", "AWS", strings.Repeat("x", 17<<10), "/v2/app/manifests/v1", 401, nil},
		{"docker login", "AWS", "good", "/v2/", 200, []string{near + " /v2/ good"}},
		{"docker login, wrong", "AWS", "bad1", "/v2/", 401, []string{near + " /v2/ bad1"}},
		{"direct: a token of this region", "AWS", "good", "/v2/app/manifests/v1", 200, []string{near + " /v2/app/manifests/v1 good"}},
		{"and again, another manifest", "AWS", "good", "/v2/app/manifests/" + w.image.Desc.Digest.String(), 200, nil},
		{"ns: a token of that region, nowhere else", "AWS", "good", "/v2/app/manifests/v1?ns=" + source, 200, []string{source + " /v2/app/manifests/v1 good"}},
		{"prefix", "AWS", "goo2", "/v2/" + source + "/app/manifests/v1", 200, []string{source + " /v2/app/manifests/v1 goo2"}},
		{"an alias has no region", "AWS", "goo3", "/v2/app/manifests/v1?ns=mirror.example", 200, []string{near + " /v2/app/manifests/v1 goo3"}},
		{"a blob is a question of its own", "AWS", "good", "/v2/app/blobs/" + blob, 200, []string{near + " /v2/app/blobs/" + blob + " good"}},
		{"tags are another", "AWS", "good", "/v2/app/tags/list", 200, []string{near + " /v2/app/tags/list good"}},
		{"absent, but of a repository that it may read", "AWS", "good", "/v2/app/manifests/v9?ns=" + near, 404, nil},
		{"the same without a memory", "AWS", "goo4", "/v2/app/manifests/v9", 404, []string{near + " /v2/app/manifests/v9 goo4"}},
		{"expired", "AWS", "old1", "/v2/app/manifests/v1", 401, []string{near + " /v2/app/manifests/v1 old1"}},
		{"of another region", "AWS", "far1", "/v2/app/manifests/v1", 401, []string{near + " /v2/app/manifests/v1 far1"}},
		{"rejected", "AWS", "bad1", "/v2/app/manifests/v1", 401, []string{near + " /v2/app/manifests/v1 bad1"}},
		{"rejected again", "AWS", "bad1", "/v2/app/manifests/v1", 401, nil},
		{"not allowed", "AWS", "good", "/v2/secret/manifests/v1", 403, []string{near + " /v2/secret/manifests/v1 good"}},
		{"no such repository", "AWS", "good", "/v2/nowhere/manifests/v1", 404, []string{near + " /v2/nowhere/manifests/v1 good"}},
		{"nobody to ask", "AWS", "busy", "/v2/app/manifests/v1", 503, []string{near + " /v2/app/manifests/v1 busy"}},
		{"an unknown registry is not asked", "AWS", "good", "/v2/app/manifests/v1?ns=evil.example", 404, nil},
	} {
		var h []string
		if c.user != "" {
			h = []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(c.user+":"+c.token))}
		}
		a := w.do(t, "GET", c.path, h...)
		if a.status != c.status || (a.header.Get("Www-Authenticate") != "") != (a.status == 401) {
			t.Errorf("%s: %d %s, want %d", c.name, a.status, a.body, c.status)
		}
		if d := cmp.Diff(c.asked, f.took()); d != "" {
			t.Errorf("%s: asked (-want +got):\n%s", c.name, d)
		}
	}
	w.Close() // what is logged of the last request is logged once it is answered
	log := w.log.String()
	for _, secret := range []string{"good", "bad1", "old1", "far1", "s3cret"} {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
	for _, want := range []string{"level=WARN msg=denied", "repo=secret", "client=127.0.0.1:"} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit lacks %q", want)
		}
	}
	if n := strings.Count(log, "msg=denied"); n != 9 { // all refusals but those without a credential
		t.Errorf("%d audit lines", n)
	}
}

// A repository has another name at the registry that is asked.
func TestECRTokenOfRenamed(t *testing.T) {
	f := new(fakeECR)
	w := newWorld(t, func(o *serve.Options) {
		o.Mirrors[0].Auth = serve.NewECRAuth("m", serve.ECRAuthOptions{Transport: f, Registries: []serve.ECRRegistry{{Host: near, URL: "https://" + near,
			Repo: func(repo string) string { return map[string]string{"app": "there/app"}[repo] }}}})
	})
	auth := "Basic " + base64.StdEncoding.EncodeToString([]byte("AWS:good"))
	if a := w.do(t, "GET", "/v2/app/manifests/v1", "Authorization", auth); a.status != 200 {
		t.Errorf("%d", a.status)
	}
	if a := w.do(t, "GET", "/v2/other/manifests/v1", "Authorization", auth); a.status != 404 || a.code(t) != "NAME_UNKNOWN" {
		t.Errorf("without a name there: %d", a.status)
	}
	if d := cmp.Diff([]string{near + " /v2/there/app/manifests/v1 good"}, f.took()); d != "" {
		t.Error(d)
	}
}

// A /v2/ that names none of several mirrors shows its token to nobody.
func TestECRTokenOfSeveralMirrors(t *testing.T) {
	f := new(fakeECR)
	w := newWorld(t, func(o *serve.Options) {
		o.Mirrors[0].Auth, o.Mirrors[1].Auth = newECRAuth(f, false), newECRAuth(f, false)
	})
	if a := w.do(t, "GET", "/v2/", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("AWS:good"))); a.status != 200 || len(f.took()) != 0 {
		t.Errorf("%d", a.status)
	}
	if a := w.do(t, "GET", "/v2/", "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("bob:good"))); a.status != 401 {
		t.Errorf("another user: %d", a.status)
	}
}

// How long answers last, with and without an outage.
func TestECRTokenOverTime(t *testing.T) {
	for _, known := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := new(fakeECR)
			auth := newECRAuth(f, known)
			tok := token("", time.Now().Add(time.Hour))
			check := func(tok string) int {
				r := httptest.NewRequest("GET", "/", nil)
				r.SetBasicAuth("AWS", tok)
				h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{near}, Auth: auth, Reader: hanging{}}}})
				rec := httptest.NewRecorder()
				r.URL.Path = "/v2/"
				h.ServeHTTP(rec, r)
				return rec.Code
			}
			step := func(name string, wait time.Duration, tok string, status, asked int) {
				t.Helper()
				time.Sleep(wait)
				if got, n := check(tok), len(f.took()); got != status || n != asked {
					t.Errorf("known %v, %s: %d after %d questions, want %d after %d", known, name, got, n, status, asked)
				}
			}
			inOutage := 503
			if known {
				inOutage = 200
			}
			step("first", 0, tok, 200, 1)
			step("remembered", 299*time.Second, tok, 200, 0)
			step("asked again", 2*time.Second, tok, 200, 1)
			step("a no", 0, "bad", 401, 1)
			step("a no is remembered", 9*time.Second, "bad", 401, 0)
			step("and asked again", 2*time.Second, "bad", 401, 1)
			f.down = func() {}
			step("outage, still fresh", 0, tok, 200, 0)
			step("outage", 5*time.Minute, tok, inOutage, 1)
			step("outage, never seen", 0, "new", 503, 1)
			step("outage, denied before", 0, "bad", 503, 1)
			f.down = func() { time.Sleep(time.Minute) }
			step("nobody answers", 0, tok, inOutage, 1)
			time.Sleep(time.Minute)
			step("until the token expires", time.Hour, tok, 503, 1)
			time.Sleep(time.Minute)
			f.down = nil
			step("over", 0, tok, 200, 1)
		})
	}
}

// Many requests with one token are one question, which outlives the client that asked first.
func TestECRTokenIsAskedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeECR{}
		auth := newECRAuth(f, false)
		h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{near}, Auth: auth}}})
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				r := httptest.NewRequest("GET", "/v2/", nil)
				r.SetBasicAuth("AWS", "good")
				rec := httptest.NewRecorder()
				if h.ServeHTTP(rec, r); rec.Code != 200 {
					t.Errorf("%d", rec.Code)
				}
			})
		}
		wg.Wait()
		if n := len(f.took()); n != 1 {
			t.Errorf("%d questions, want 1", n)
		}
	})
}
