package wire_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

const (
	sha256 = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	ecr    = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
)

func TestParse(t *testing.T) {
	sha512 := digest.SHA512.FromString("")
	for in, want := range map[string]wire.Request{
		"/v2":                                 {Endpoint: wire.Base},
		"/v2/":                                {Endpoint: wire.Base},
		"/v2/?ns=Docker.IO":                   {Endpoint: wire.Base, NS: "docker.io"},
		"/v2/app/manifests/latest":            {Endpoint: wire.Manifest, Name: "app", Tag: "latest"},
		"/v2/a/b/c/manifests/_x.y-Z":          {Endpoint: wire.Manifest, Name: "a/b/c", Tag: "_x.y-Z"},
		"/v2/app/manifests/" + string(sha256): {Endpoint: wire.Manifest, Name: "app", Digest: sha256},
		"/v2/app/blobs/" + string(sha512):     {Endpoint: wire.Blob, Name: "app", Digest: sha512},
		"/v2/app/blobs/" + string(sha256) + "?ns=" + ecr + ":5000":                     {Endpoint: wire.Blob, Name: "app", Digest: sha256, NS: ecr + ":5000"},
		"/v2/" + ecr + "/app/blobs/" + string(sha256):                                  {Endpoint: wire.Blob, Name: ecr + "/app", Digest: sha256},
		"/v2/localhost:5000/app/tags/list":                                             {Endpoint: wire.Tags, Name: "localhost:5000/app"},
		"/v2/blobs/manifests/tags/manifests/list":                                      {Endpoint: wire.Manifest, Name: "blobs/manifests/tags", Tag: "list"},
		"/v2/x/blobs/uploads/manifests/v1":                                             {Endpoint: wire.Manifest, Name: "x/blobs/uploads", Tag: "v1"},
		"/v2/app/tags/list":                                                            {Endpoint: wire.Tags, Name: "app"},
		"/v2/app/tags/list?n=10&last=v1":                                               {Endpoint: wire.Tags, Name: "app", N: 10, Last: "v1"},
		"/v2/app/tags/list?n=0":                                                        {Endpoint: wire.Tags, Name: "app", N: 0},
		"/v2/app/tags/list?n=99999999999999999999999":                                  {Endpoint: wire.Tags, Name: "app", N: wire.MaxPage},
		"/v2/app/referrers/" + string(sha256):                                          {Endpoint: wire.Referrers, Name: "app", Digest: sha256},
		"/v2/app/referrers/" + string(sha256) + "?artifactType=application%2Fx%2Bjson": {Endpoint: wire.Referrers, Name: "app", Digest: sha256, ArtifactType: "application/x+json"},
		"/v2/_catalog":                {Endpoint: wire.Catalog},
		"/v2/app/blobs/uploads":       {Endpoint: wire.Uploads, Name: "app"},
		"/v2/app/blobs/uploads/":      {Endpoint: wire.Uploads, Name: "app"},
		"/v2/a/b/blobs/uploads/1-2-3": {Endpoint: wire.Uploads, Name: "a/b"},
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(in, "n=") || strings.Contains(in, "?ns=") {
			want.N = -1
		}
		got, err := wire.Parse(u)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	long := strings.Repeat("a", 256)
	for in, want := range map[string]string{ // "": an unknown path
		"/":                                               "",
		"/v1/":                                            "",
		"/v22/app/tags/list":                              "",
		"/v2/app":                                         "",
		"/v2/app/tags":                                    "",
		"/v2/app/tags/list/":                              "",
		"/v2/manifests/latest":                            "",
		"/v2//manifests/latest":                           "",
		"/v2/app/layers/latest":                           "",
		"/v2/app/uploads/1":                               "",
		"/v2/APP/x/Y/manifests/latest":                    registry.CodeNameInvalid,
		"/v2/a//b/manifests/latest":                       registry.CodeNameInvalid,
		"/v2/../etc/manifests/latest":                     registry.CodeNameInvalid,
		"/v2/a/../../etc/manifests/latest":                registry.CodeNameInvalid,
		"/v2/a%00b/manifests/latest":                      registry.CodeNameInvalid,
		"/v2/a%0Ab/manifests/latest":                      registry.CodeNameInvalid,
		"/v2/" + long + "/manifests/latest":               registry.CodeNameInvalid,
		"/v2/app/manifests/":                              registry.CodeTagInvalid,
		"/v2/app/manifests/.x":                            registry.CodeTagInvalid,
		"/v2/app/manifests/" + long:                       registry.CodeTagInvalid,
		"/v2/app/manifests/a%2F..%2Fb":                    "",
		"/v2/app/manifests/sha256:abc":                    registry.CodeDigestInvalid,
		"/v2/app/manifests/md5:" + long[:32]:              registry.CodeDigestInvalid,
		"/v2/app/blobs/latest":                            registry.CodeDigestInvalid,
		"/v2/app/blobs/sha256:" + strings.Repeat("A", 64): registry.CodeDigestInvalid,
		"/v2/app/blobs/sha256:" + strings.Repeat("/", 64): "",
		"/v2/app/referrers/v1":                            registry.CodeDigestInvalid,
		"/v2/app/tags/list?n=-1":                          wire.CodePaginationNumberInvalid,
		"/v2/app/tags/list?n=1e3":                         wire.CodePaginationNumberInvalid,
		"/v2/app/tags/list?n=+1":                          wire.CodePaginationNumberInvalid,
		"/v2/?ns=" + long + long:                          registry.CodeNameInvalid,
		"/v2/?ns=a;b":                                     wire.CodeUnknown, // a query that is half read names another registry
		"/v2/app/manifests/latest?ns=docker.io;x=1":       wire.CodeUnknown,
		"/v2/app/manifests/latest?ns=docker.io%zz":        wire.CodeUnknown,
		"/v2/app/referrers/" + string(sha256) + "?artifactType=" + long: wire.CodeUnknown,
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		class := registry.Invalid
		if want == "" {
			class, want = registry.NotFound, wire.CodeUnknown
		}
		if _, err = wire.Parse(u); registry.ClassOf(err) != class || registry.CodeOf(err) != want || err == nil {
			t.Errorf("%s: %v of class %v, code %q; want %v, %q", in, err, registry.ClassOf(err), registry.CodeOf(err), class, want)
		}
	}
}

func TestSplitHost(t *testing.T) {
	for in, want := range map[string][2]string{
		"app":                   {"", "app"},
		"team/app":              {"team", "app"},
		"LocalHost:5000/team/x": {"localhost:5000", "team/x"},
	} {
		host, repo := wire.Request{Name: in}.SplitHost()
		if got := [2]string{host, repo}; got != want {
			t.Errorf("%s: %v, want %v", in, got, want)
		}
	}
}

func TestCheckRepo(t *testing.T) {
	for repo, ok := range map[string]bool{
		"app": true, "a/b/c": true, "docker.io/library/nginx": true, "a__b-c.d": true,
		strings.Repeat("a", 255): true, strings.Repeat("a", 256): false,
		"": false, "App": false, "APP/x": false, "h:5000/x": false, "a..b": false, "a/": false, "/a": false, "a b": false,
	} {
		if err := wire.CheckRepo(repo); (err == nil) != ok {
			t.Errorf("%s: %v, want ok %t", repo, err, ok)
		}
	}
}

// TestNamesFollowTheGrammar holds what is let through without a look at the grammar against it.
func TestNamesFollowTheGrammar(t *testing.T) {
	names := rapid.StringOfN(rapid.RuneFrom([]rune("ab09./_-A:")), 0, 12, -1)
	rapid.Check(t, func(t *rapid.T) {
		name := names.Draw(t, "name")
		_, err := reference.WithName(name)
		u := &url.URL{Path: wire.TagsPath(name, 0, "")}
		if _, got := wire.Parse(u); (got == nil) != (err == nil) {
			t.Fatalf("Parse %q: %v, the grammar: %v", name, got, err)
		}
		behind, err := reference.WithName("host/" + name)
		if got := wire.CheckRepo(name); (got == nil) != (err == nil && reference.Path(behind) == name) {
			t.Fatalf("CheckRepo %q: %v, the grammar: %v", name, got, err)
		}
		named, err := reference.WithName("a")
		if err == nil {
			_, err = reference.WithTag(named, name)
		}
		if _, got := wire.Parse(&url.URL{Path: wire.ManifestPath("a", name)}); !strings.ContainsAny(name, ":/") && (got == nil) != (err == nil) {
			t.Fatalf("Parse tag %q: %v, the grammar: %v", name, got, err)
		}
	})
}

// TestPaths holds that what a client builds is what a server reads.
func TestPaths(t *testing.T) {
	for path, want := range map[string]wire.Request{
		wire.ManifestPath("a/b", "v1"):              {Endpoint: wire.Manifest, Name: "a/b", Tag: "v1", N: -1},
		wire.ManifestPath("a/b", string(sha256)):    {Endpoint: wire.Manifest, Name: "a/b", Digest: sha256, N: -1},
		wire.BlobPath("a/b", sha256):                {Endpoint: wire.Blob, Name: "a/b", Digest: sha256, N: -1},
		wire.UploadsPath("a/b"):                     {Endpoint: wire.Uploads, Name: "a/b", N: -1},
		wire.TagsPath("a/b", 0, ""):                 {Endpoint: wire.Tags, Name: "a/b", N: -1},
		wire.TagsPath("a/b", 5, "v1"):               {Endpoint: wire.Tags, Name: "a/b", N: 5, Last: "v1"},
		wire.ReferrersPath("a/b", sha256, ""):       {Endpoint: wire.Referrers, Name: "a/b", Digest: sha256, N: -1},
		wire.ReferrersPath("a/b", sha256, "x/y+&z"): {Endpoint: wire.Referrers, Name: "a/b", Digest: sha256, ArtifactType: "x/y+&z", N: -1},
	} {
		u, err := url.Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.Parse(u)
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", path, err, d)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/v2/", "/v2/_catalog", "/v2/a/b/manifests/v1?ns=h:1", "/v2/a/blobs/" + string(sha256),
		"/v2/a/tags/list?n=1&last=x", "/v2/a/referrers/" + string(sha256) + "?artifactType=t", "/v2/a/blobs/uploads/u", "/v2/%00/../manifests/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		r, err := wire.Parse(u)
		if err != nil {
			if c := registry.ClassOf(err); c != registry.NotFound && c != registry.Invalid {
				t.Fatalf("%q: class %v", s, c)
			}
			if len(err.Error()) > 2048 || strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Fatalf("%q: message %q", s, err)
			}
			return
		}
		var path string
		switch r.Endpoint {
		case wire.Manifest:
			path = wire.ManifestPath(r.Name, r.Tag+string(r.Digest))
		case wire.Blob:
			path = wire.BlobPath(r.Name, r.Digest)
		case wire.Tags:
			path = wire.TagsPath(r.Name, r.N, r.Last)
			if r.N == 0 {
				return // a client does not ask for nothing
			}
		case wire.Referrers:
			path = wire.ReferrersPath(r.Name, r.Digest, r.ArtifactType)
		default:
			return
		}
		if strings.Contains(r.Name, "..") || strings.ContainsAny(r.Name, "\\ %?#\x00") {
			t.Fatalf("%q: name %q", s, r.Name)
		}
		u, err = url.Parse(path)
		if err != nil {
			t.Fatalf("%q -> %q: %v", s, path, err)
		}
		r.NS = ""
		again, err := wire.Parse(u)
		if d := cmp.Diff(r, again); d != "" || err != nil {
			t.Fatalf("%q -> %q: %v %s", s, path, err, d)
		}
	})
}
