package serve_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

func line(t *testing.T, user, password string) string {
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(h) + "\n"
}

func write(t *testing.T, path, content string, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	if err := os.Chtimes(path, at, at); err != nil { // so that a change shows whatever the file system's resolution is
		t.Fatal(err)
	}
}

// TestHtpasswd holds rules A1 and A2: a Basic challenge on every endpoint, /v2/ first of all, for whatever is not right.
func TestHtpasswd(t *testing.T) {
	path := t.TempDir() + "/htpasswd"
	write(t, path, "# people\n\n"+line(t, "alice", "wonder:land")+line(t, "bob", ""), time.Hour)
	auth, err := serve.NewHtpasswd(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, withAuth(auth))
	basic := func(user, password string) []string {
		r := httptest.NewRequest("GET", "/", nil)
		r.SetBasicAuth(user, password)
		return []string{"Authorization", r.Header.Get("Authorization")}
	}
	for name, c := range map[string]struct {
		header []string
		ok     bool
	}{
		"right":          {basic("alice", "wonder:land"), true},
		"wrong":          {basic("alice", "wonder"), false},
		"unknown user":   {basic("eve", "wonder:land"), false},
		"empty (podman)": {basic("", ""), false},
		"none":           {nil, false},
		"bearer":         {[]string{"Authorization", "Bearer abc"}, false},
		"malformed":      {[]string{"Authorization", "Basic %%%"}, false},
		"long":           {basic("alice", strings.Repeat("x", 5000)), false},
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // the second answer may come from memory
				for _, p := range []string{"/v2/", "/v2/app/manifests/v1", "/v2/app/blobs/" + w.big.Desc.Digest.String(), "/v2/app/tags/list"} {
					w.faulty.Forget()
					a := w.do(t, "GET", p, c.header...)
					if c.ok {
						if a.status != 200 {
							t.Errorf("%s: %d", p, a.status)
						}
						continue
					}
					want := []string{`Basic realm="ecr-mirror",service="ecr.amazonaws.com"`}
					if d := cmp.Diff(want, a.header.Values("Www-Authenticate")); a.status != 401 || d != "" || a.code(t) != "UNAUTHORIZED" || w.faulty.Count() != 0 {
						t.Errorf("%s: %d %s %s", p, a.status, a.body, d)
					}
				}
			}
		})
	}

	write(t, path, line(t, "alice", "new"), time.Minute)
	if a := w.do(t, "GET", "/v2/", basic("alice", "wonder:land")...); a.status != 401 {
		t.Errorf("old password after a change: %d", a.status)
	}
	if a := w.do(t, "GET", "/v2/", basic("alice", "new")...); a.status != 200 {
		t.Errorf("new password: %d", a.status)
	}
	write(t, path, "alice", 0)
	if a := w.do(t, "GET", "/v2/", basic("alice", "new")...); a.status != 200 {
		t.Errorf("a broken file: %d, want the last good one kept", a.status)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if a := w.do(t, "GET", "/v2/", basic("alice", "new")...); a.status != 200 {
		t.Errorf("no file: %d, want the last good one kept", a.status)
	}
	w.Close() // what is logged of the last request is logged once it is answered
	if strings.Contains(w.log.String(), "wonder") {
		t.Error("the log holds a password")
	}
	const tried = 3*2*4 + 1 // wrong, unknown user, long, and the old password: whoever sent nothing to look at is asked, not denied
	if n := strings.Count(w.log.String(), `level=WARN msg=denied client=127.0.0.1:`); n != tried {
		t.Errorf("%d audit lines, want %d", n, tried)
	}
}

func TestHtpasswdRefuses(t *testing.T) {
	path := t.TempDir() + "/htpasswd"
	if _, err := serve.NewHtpasswd(path, nil); err == nil {
		t.Error("no file: accepted")
	}
	for name, content := range map[string]string{
		"empty": "", "no hash": "alice\n", "no user": ":x\n", "md5": "alice:$apr1$abc$def\n", "plain": "alice:secret\n", "costly": "alice:$2y$15$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg\n", "huge": strings.Repeat("#\n", 1<<20),
	} {
		write(t, path, content, 0)
		if _, err := serve.NewHtpasswd(path, nil); err == nil || strings.Contains(err.Error(), "secret") || registry.ClassOf(err) != registry.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestAuthenticator holds what the interface promises to other implementations: whom it is asked about, and how its errors
// are answered.
func TestAuthenticator(t *testing.T) {
	var asked []string
	var answer error
	w := newWorld(t, withAuth(&authFunc{func(_ *http.Request, a serve.Access) error {
		asked = append(asked, fmt.Sprint(a.Endpoint, " ", a.Registry, " ", a.Repo, " ", a.Reference))
		return answer
	}}))
	d := w.image.Desc.Digest.String()
	w.do(t, "GET", "/v2/")
	w.do(t, "GET", "/v2/?ns="+other)
	w.do(t, "GET", "/v2/app/manifests/v1")
	w.do(t, "HEAD", "/v2/app/manifests/"+d+"?ns=Mirror.Example")
	w.do(t, "GET", "/v2/"+other+"/only/second/blobs/"+d)
	w.do(t, "GET", "/v2/"+source+"/app/tags/list?ns=mirror.example")
	w.do(t, "GET", "/v2/app/referrers/"+d)
	w.do(t, "GET", "/v2/app/manifests/v1?ns=unknown.example")
	want := []string{"base   ", "base " + other + "  ", "manifest  app v1", "manifest mirror.example app " + d, "blob " + other + " only/second " + d,
		"tags mirror.example app ", "referrers  app " + d}
	if d := cmp.Diff(want, asked); d != "" {
		t.Error(d)
	}
	for _, c := range []struct {
		err    error
		status int
	}{
		{registry.Errorf(registry.Denied, "no"), 401},
		{&registry.Error{Class: registry.Denied, Code: wire.CodeDenied, Err: errDown}, 403},
		{registry.Errorf(registry.Unavailable, "cannot ask"), 503},
		{errDown, 500},
	} {
		answer = c.err
		a := w.do(t, "GET", "/v2/app/manifests/v1")
		if a.status != c.status || (a.header.Get("Www-Authenticate") != "") != (c.status == 401) {
			t.Errorf("%v: %d %v", c.err, a.status, a.header)
		}
	}
}

// Who is not let in does not learn where to push, which names an account; who is, does.
func TestPushOfStrangers(t *testing.T) {
	path := t.TempDir() + "/htpasswd"
	write(t, path, line(t, "alice", "secret"), time.Hour)
	people, err := serve.NewHtpasswd(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	asked := new(fakeECR)
	const account = "111122223333"
	for _, c := range []struct {
		auth      serve.Authenticator
		good, bad string
	}{
		{people, "alice:secret", "alice:guess"},
		{newECRAuth(asked, false), "AWS:good", "AWS:bad"},
	} {
		w := newWorld(t, withAuth(c.auth))
		basic := func(credential string) []string {
			return []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(credential))}
		}
		for _, ask := range [][2]string{{"POST", "/v2/app/blobs/uploads/"}, {"PUT", "/v2/app/manifests/v1"}, {"DELETE", "/v2/app/manifests/v1"},
			{"GET", "/v2/_catalog"}, {"POST", "/v2/"}, {"PATCH", "/v2/app/blobs/uploads/1"}} {
			for _, h := range [][]string{nil, basic(c.bad)} {
				if a := w.do(t, ask[0], ask[1], h...); a.status != 401 || strings.Contains(fmt.Sprint(a.header)+string(a.body), account) {
					t.Errorf("%s, with %q: %d %v %s", ask, h, a.status, a.header, a.body)
				}
			}
			asked.took()
			a := w.do(t, ask[0], ask[1], basic(c.good)...)
			if a.status != 405 || strings.Contains(string(a.body), account+".dkr.ecr.us-west-2.amazonaws.com/app") != strings.Contains(ask[1], "/app/") {
				t.Errorf("%s of a friend: %d %s", ask, a.status, a.body)
			}
			for _, q := range asked.took() {
				if q != near+" /v2/ good" {
					t.Errorf("%s: ECR was asked %q", ask, q)
				}
			}
		}
	}
}

// Mirrors differ in whom they let in; a /v2/ that names none wants a credential if any does, and takes one that any takes.
func TestAuthPerMirror(t *testing.T) {
	auth := func(user string) *authFunc {
		return &authFunc{func(r *http.Request, _ serve.Access) error {
			if got, _, _ := r.BasicAuth(); got != user {
				return registry.Errorf(registry.Denied, "not %s", user)
			}
			return nil
		}}
	}
	for name, c := range map[string]struct {
		first, second serve.Authenticator
		want          string // statuses of: /v2/, /v2/ of each mirror, a manifest of each
	}{
		"nobody":          {nil, nil, "- 200 200 200 200 200; alice 200 200 200 200 200; bob 200 200 200 200 200"},
		"the second only": {nil, auth("bob"), "- 401 200 401 200 401; alice 401 200 401 200 401; bob 200 200 200 200 200"},
		"both":            {auth("alice"), auth("bob"), "- 401 401 401 401 401; alice 200 200 401 200 401; bob 200 401 200 401 200"},
	} {
		w := newWorld(t, func(o *serve.Options) { o.Mirrors[0].Auth, o.Mirrors[1].Auth = c.first, c.second })
		var got []string
		for _, user := range []string{"-", "alice", "bob"} {
			row := user
			for _, path := range []string{"/v2/", "/v2/?ns=" + source, "/v2/?ns=" + other, "/v2/app/manifests/v1", "/v2/" + other + "/only/second/manifests/v1"} {
				var h []string
				if user != "-" {
					h = []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":x"))}
				}
				row += fmt.Sprint(" ", w.do(t, "GET", path, h...).status)
			}
			got = append(got, row)
		}
		if d := cmp.Diff(c.want, strings.Join(got, "; ")); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}
