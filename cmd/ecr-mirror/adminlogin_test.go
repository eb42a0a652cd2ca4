package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// htpasswdOf writes a file with one user.
func htpasswdOf(t *testing.T, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	must(t, err)
	name := filepath.Join(t.TempDir(), "htpasswd")
	must(t, os.WriteFile(name, []byte(user+":"+string(hash)+"\n"), 0o600))
	return name
}

// With adminAuth nobody changes anything without a login, this host's commands neither; reading needs none.
func TestAdminLogin(t *testing.T) {
	r := newRig(t, "adminAuth: {htpasswd: "+htpasswdOf(t, "operator", "secret")+"}\n")
	r.seed("app", "v1", registrytest.Image(1, 1000))
	admin := "http://" + r.app.adminAddr.String()
	do := func(method, path, password string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, admin+path, nil)
		must(t, err)
		if password != "" {
			req.SetBasicAuth("operator", password)
		}
		res, err := http.DefaultClient.Do(req)
		must(t, err)
		must(t, res.Body.Close())
		return res.StatusCode
	}
	for _, tc := range []struct {
		method, path, password string
		want                   int
	}{
		{"GET", "/metrics", "", 200}, {"GET", "/readyz", "", 200}, {"GET", "/status", "", 200},
		{"GET", "/plan", "", 401}, {"POST", "/sync", "", 401}, {"GET", "/dead-letters", "", 401},
		{"POST", "/purge?repository=app", "", 401}, {"POST", "/purge?repository=app", "wrong", 401}, {"POST", "/purge?repository=app", "secret", 204},
	} {
		if got := do(tc.method, tc.path, tc.password); got != tc.want {
			t.Errorf("%s %s with %q: %d, want %d", tc.method, tc.path, tc.password, got, tc.want)
		}
	}
	file := filepath.Join(t.TempDir(), "login")
	must(t, os.WriteFile(file, []byte("operator:secret\nmore\n"), 0o600))
	list := func(login, loginFile string) error {
		t.Setenv(loginVariable, login)
		t.Setenv(loginFileVariable, loginFile)
		_, err := r.run("dead-letters", "list")
		return err
	}
	for _, tc := range []struct{ login, file, want string }{
		{"", "", loginFileVariable}, {"operator:wrong", "", "wrong user or password"}, {"operator", "", "not USER:PASSWORD"},
		{"", file + "-", loginFileVariable + ": "}, {"operator:secret", "", ""}, {"", file, ""},
	} {
		if err := list(tc.login, tc.file); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
	req, err := http.NewRequest("GET", "http://192.0.2.1:5001/dead-letters", nil)
	must(t, err)
	if err := logIn(req, func(string) string { return "operator:secret" }); err == nil || req.Header.Get("Authorization") != "" {
		t.Errorf("to another host: %v", err)
	}
}
