package serve_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// FuzzRequest sends any path, query, Range and Authorization through the whole front and holds what is true of every answer.
func FuzzRequest(f *testing.F) {
	m := mem.New()
	image := registrytest.Image(1, 100, 100<<10)
	registrytest.Push(f, m, "app", "v1", image)
	blob := image.Blobs[2]
	const secret = "s3cret-t0ken"
	for _, s := range [][4]string{
		{"/v2/", "", "", ""}, {"/v2/app/manifests/v1", "ns=" + source, "bytes=0-", "Basic QVdTOmdvb2Q="},
		{"/v2/app/blobs/" + blob.Desc.Digest.String(), "", "bytes=10-19", "Basic QVdTOmdvb2Q="}, {"/v2/app/blobs/" + blob.Desc.Digest.String(), "", "bytes=-7", "Basic " + secret},
		{"/v2/" + source + "/app/tags/list", "n=1&last=a", "bytes=1-0,5-", "Bearer " + secret}, {"/v2/app/referrers/" + image.Desc.Digest.String(), "artifactType=a%00", "", "Basic Og=="},
		{"/v2/../app/blobs/sha256:00", "ns=%0a", "bytes=99999999999999999999-", "Basic QVdTOg=="}, {"/v2/a/blobs/uploads/", "", "pages=1", "basic \x00"},
	} {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, path, query, rng, auth string) {
		asked := new(fakeECR)
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = &url.URL{Path: path, RawQuery: query}
		r.Header = http.Header{"Range": {rng}, "Authorization": {auth}}
		for _, withAuth := range []bool{false, true} {
			mirror := serve.Mirror{Names: []string{source, near}, Reader: m, Lister: m}
			if withAuth {
				mirror.Auth = newECRAuth(asked, false)
			}
			rec := httptest.NewRecorder()
			serve.New(serve.Options{Mirrors: []serve.Mirror{mirror}}).ServeHTTP(rec, r)
			h := rec.Header()
			switch rec.Code {
			case 200, 206, 400, 401, 403, 404, 405, 416, 503:
			default:
				t.Fatalf("status %d", rec.Code)
			}
			if n, err := strconv.Atoi(h.Get("Content-Length")); rec.Code < 300 && (err != nil || n != rec.Body.Len()) {
				t.Fatalf("Content-Length %q of %d bytes", h.Get("Content-Length"), rec.Body.Len())
			}
			var e struct{ Errors []struct{ Code string } }
			if rec.Code >= 400 && (json.Unmarshal(rec.Body.Bytes(), &e) != nil || len(e.Errors) != 1 || e.Errors[0].Code == "" || rec.Body.Len() > 2048) {
				t.Fatalf("error body %q", rec.Body)
			}
			if strings.Contains(fmt.Sprint(h, rec.Body.String()), secret) {
				t.Fatalf("the credential came back: %v %s", h, rec.Body)
			}
			if rec.Code == 206 {
				var from, to, size int
				if _, err := fmt.Sscanf(h.Get("Content-Range"), "bytes %d-%d/%d", &from, &to, &size); err != nil || to-from+1 != rec.Body.Len() {
					t.Fatalf("Content-Range %q of %d bytes", h.Get("Content-Range"), rec.Body.Len())
				}
				if size == len(blob.Body) && !bytes.Equal(rec.Body.Bytes(), blob.Body[from:to+1]) {
					t.Fatalf("%s: other bytes", h.Get("Content-Range"))
				}
			}
			for _, question := range asked.took() {
				if host, _, _ := strings.Cut(question, " "); host != near && host != source {
					t.Fatalf("a token was shown to %q", question)
				}
			}
		}
	})
}

// FuzzToken gives any password for a token: nothing but what the registry says lets it in, and what it claims of its own life
// shortens it at most.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "good", token("", time.Now()), token("", time.Now().Add(100*365*24*time.Hour)), "eyJleHBpcmF0aW9uIjoxZTk5OX0=",
		"eyJleHBpcmF0aW9uIjotMX0=", "e30=", "bad", "old", strings.Repeat("A", 20<<10), "a:b", "\x00\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, password string) {
		ecr := new(fakeECR)
		h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{near}, Auth: newECRAuth(ecr, true)}}})
		want := 200
		if password == "" || len(password) > 16<<10 || strings.HasPrefix(password, "bad") || strings.HasPrefix(password, "old") || strings.HasPrefix(password, "far") {
			want = 401
		}
		if strings.HasPrefix(password, "busy") {
			want = 503
		}
		for range 2 {
			r := httptest.NewRequest("GET", "/v2/", nil)
			r.SetBasicAuth("AWS", password)
			rec := httptest.NewRecorder()
			if h.ServeHTTP(rec, r); rec.Code != want {
				t.Fatalf("%d, want %d", rec.Code, want)
			}
		}
		if len(ecr.took()) > 2 {
			t.Fatal("asked more than once a time")
		}
	})
}
