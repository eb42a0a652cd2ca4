package serve_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	source = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
	other  = "localhost:5999"
)

// world is a front over two memory registries, the first with an image app:v1 of a small and a large layer.
type world struct {
	*httptest.Server
	mem    *mem.Registry
	faulty *registrytest.Faulty // in front of mem: counts calls
	image  registrytest.Node
	big    registrytest.Blob
	small  registrytest.Blob
	log    *strings.Builder
}

func newWorld(t *testing.T, change func(*serve.Options)) *world {
	w := &world{mem: mem.New(), image: registrytest.Image(1, 1000, 3<<20), log: new(strings.Builder)}
	w.small, w.big = w.image.Blobs[1], w.image.Blobs[2]
	registrytest.Push(t, w.mem, "app", "v1", w.image)
	registrytest.Push(t, w.mem, "docker.io/library/nginx", "v1", registrytest.Image(2, 10))
	w.faulty = registrytest.NewFaulty(w.mem)
	second := mem.New()
	registrytest.Push(t, second, "only/second", "v1", registrytest.Image(3, 10))
	o := serve.Options{Mirrors: []serve.Mirror{
		{Names: []string{source, "mirror.example"}, Reader: w.faulty, Lister: w.faulty},
		{Names: []string{other}, Reader: second, Lister: second},
	}, Logger: slog.New(slog.NewTextHandler(w.log, nil))}
	if change != nil {
		change(&o)
	}
	w.Server = httptest.NewUnstartedServer(serve.New(o))
	w.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	w.Start()
	t.Cleanup(w.Close)
	w.Client().Transport.(*http.Transport).DisableCompression = true // a request says what the test says
	w.Client().CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return w
}

type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // of reading the body
}

func (w *world) do(t *testing.T, method, path string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := w.Client().Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, body, err}
}

func (a answer) code(t *testing.T) string {
	t.Helper()
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.body, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Message == "" {
		t.Fatalf("%d: body %q is no error body: %v", a.status, a.body, err)
	}
	return e.Errors[0].Code
}

// TestConformance has a row for every requirement of the OCI distribution specification v1.1 on pull and content discovery,
// and for the rules that clients add (facts R, M, B, P: what containerd, docker, podman, SOCI and others were seen to need).
func TestConformance(t *testing.T) {
	w := newWorld(t, nil)
	config := w.image.Blobs[0]
	ref := registrytest.Referrer(w.image.Desc, "application/x-sbom", []byte("sbom"))
	sig := registrytest.Referrer(w.image.Desc, "application/x-signature", []byte("sig"))
	registrytest.Push(t, w.mem, "app", "", ref)
	registrytest.Push(t, w.mem, "app", "", sig)
	empty := registrytest.NewBlob("application/octet-stream", nil)
	if err := w.mem.PutBlob(t.Context(), "app", empty.Desc, strings.NewReader("")); err != nil {
		t.Fatal(err)
	}
	absent := digest.FromString("absent").String()
	sha512 := digest.SHA512.FromString("absent").String()
	man, size := w.image.Desc.Digest.String(), len(w.big.Body)
	big := "/v2/app/blobs/" + w.big.Desc.Digest.String()
	manifest := http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}, "Content-Length": {str(len(w.image.Body))},
		"Docker-Content-Digest": {man}, "Etag": {`"` + man + `"`}, "Docker-Distribution-Api-Version": {"registry/2.0"}}
	blob := http.Header{"Content-Type": {"application/octet-stream"}, "Content-Length": {str(size)}, "Accept-Ranges": {"bytes"},
		"Docker-Content-Digest": {w.big.Desc.Digest.String()}, "Etag": {`"` + w.big.Desc.Digest.String() + `"`}}
	part := func(cr string) http.Header { return http.Header{"Content-Range": {cr}, "Accept-Ranges": {"bytes"}} }
	bytesOf := func(b []byte) string { return digest.FromBytes(b).String() }
	for _, c := range []struct {
		rule   string
		method string
		path   string
		send   []string
		status int
		header http.Header // a value of nil: absent
		body   string      // digest of the body; "" not compared
		code   string      // of an error body
	}{
		{rule: "end-1 Determining Support", path: "/v2/", status: 200, header: http.Header{"Docker-Distribution-Api-Version": {"registry/2.0"}, "Www-Authenticate": nil}},
		{rule: "end-1 without slash", path: "/v2", status: 200},
		{rule: "end-1 HEAD", method: "HEAD", path: "/v2/", status: 200},
		{rule: "R1 end-1 with ns", path: "/v2/?ns=" + source, status: 200},

		{rule: "end-2 Pulling blobs: GET", path: big, status: 200, header: blob, body: bytesOf(w.big.Body)},
		{rule: "end-2 GET small", path: "/v2/app/blobs/" + config.Desc.Digest.String(), status: 200, body: bytesOf(config.Body)},
		{rule: "end-2 GET empty", path: "/v2/app/blobs/" + empty.Desc.Digest.String(), status: 200, header: http.Header{"Content-Length": {"0"}}},
		{rule: "end-2 Checking existence: HEAD", method: "HEAD", path: big, status: 200, header: blob},
		{rule: "end-2 404 BLOB_UNKNOWN", path: "/v2/app/blobs/" + absent, status: 404, code: "BLOB_UNKNOWN"},
		{rule: "end-2 HEAD 404", method: "HEAD", path: "/v2/app/blobs/" + absent, status: 404},
		{rule: "end-2 sha512 is a digest", path: "/v2/app/blobs/" + sha512, status: 404, code: "BLOB_UNKNOWN"},
		{rule: "end-2 NAME_UNKNOWN", path: "/v2/nobody/blobs/" + absent, status: 404, code: "NAME_UNKNOWN"},
		{rule: "end-2 DIGEST_INVALID", path: "/v2/app/blobs/sha256:12", status: 400, code: "DIGEST_INVALID"},
		{rule: "M5 a manifest is no blob", path: "/v2/app/blobs/" + man, status: 404, code: "BLOB_UNKNOWN"},
		{rule: "M5 HEAD", method: "HEAD", path: "/v2/app/blobs/" + man, status: 404},
		{rule: "M5 a blob is no manifest", path: "/v2/app/manifests/" + w.big.Desc.Digest.String(), status: 404, code: "MANIFEST_UNKNOWN"},
		{rule: "B1 never compressed", path: big, send: []string{"Accept-Encoding", "zstd;q=1.0, gzip;q=0.8"}, status: 200, header: http.Header{"Content-Encoding": nil}, body: bytesOf(w.big.Body)},
		{rule: "M2 never 304", path: big, send: []string{"If-None-Match", `"` + w.big.Desc.Digest.String() + `"`}, status: 200, body: bytesOf(w.big.Body)},
		{rule: "M2 never 304 by date", path: "/v2/app/manifests/v1", send: []string{"If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"}, status: 200},

		{rule: "end-2 range a-b", path: big, send: []string{"Range", "bytes=10-19"}, status: 206, header: part("bytes 10-19/" + str(size)), body: bytesOf(w.big.Body[10:20])},
		{rule: "B2 a-", path: big, send: []string{"Range", "bytes=1000000-"}, status: 206, header: part("bytes 1000000-" + str(size-1) + "/" + str(size)), body: bytesOf(w.big.Body[1000000:])},
		{rule: "B2 0- is 206", path: big, send: []string{"Range", "bytes=0-"}, status: 206, header: part("bytes 0-" + str(size-1) + "/" + str(size)), body: bytesOf(w.big.Body)},
		{rule: "B2 0-1 probe", path: big, send: []string{"Range", "bytes=0-1"}, status: 206, header: part("bytes 0-1/" + str(size)), body: bytesOf(w.big.Body[:2])},
		{rule: "B2 end clamped", path: big, send: []string{"Range", "bytes=1000-" + str(size)}, status: 206, header: part("bytes 1000-" + str(size-1) + "/" + str(size)), body: bytesOf(w.big.Body[1000:])},
		{rule: "B2 end overflows", path: big, send: []string{"Range", "bytes=1000-99999999999999999999999"}, status: 206, body: bytesOf(w.big.Body[1000:])},
		{rule: "RFC 9110 14.1.2 suffix", path: big, send: []string{"Range", "bytes=-7"}, status: 206, header: part("bytes " + str(size-7) + "-" + str(size-1) + "/" + str(size)), body: bytesOf(w.big.Body[size-7:])},
		{rule: "RFC 9110 14.1.2 suffix longer than all", path: big, send: []string{"Range", "bytes=-99999999999999999999"}, status: 206, body: bytesOf(w.big.Body)},
		{rule: "B2 start at the end", path: big, send: []string{"Range", "bytes=" + str(size) + "-"}, status: 416, header: http.Header{"Content-Range": {"bytes */" + str(size)}, "Accept-Ranges": {"bytes"}}, code: "RANGE_INVALID"},
		{rule: "B2 start overflows", path: big, send: []string{"Range", "bytes=99999999999999999999-"}, status: 416, header: http.Header{"Content-Range": {"bytes */" + str(size)}}, code: "RANGE_INVALID"},
		{rule: "RFC 9110 14.1.2 empty suffix", path: big, send: []string{"Range", "bytes=-0"}, status: 416, code: "RANGE_INVALID"},
		{rule: "B2 several ranges", path: big, send: []string{"Range", "bytes=0-1,5-6"}, status: 400},
		{rule: "RFC 9110 14.2 malformed is ignored", path: big, send: []string{"Range", "bytes=5-2"}, status: 200, header: http.Header{"Content-Range": nil}, body: bytesOf(w.big.Body)},
		{rule: "RFC 9110 14.2 unknown unit", path: big, send: []string{"Range", "pages=1-2"}, status: 200, body: bytesOf(w.big.Body)},
		{rule: "range of an empty blob", path: "/v2/app/blobs/" + empty.Desc.Digest.String(), send: []string{"Range", "bytes=0-"}, status: 200, header: http.Header{"Content-Length": {"0"}, "Content-Range": nil}},
		{rule: "range of a small blob", path: "/v2/app/blobs/" + w.small.Desc.Digest.String(), send: []string{"Range", "bytes=1-2"}, status: 206, body: bytesOf(w.small.Body[1:3])},
		{rule: "range on HEAD is ignored", method: "HEAD", path: big, send: []string{"Range", "bytes=1-2"}, status: 200, header: blob},
		{rule: "range of an absent blob", path: "/v2/app/blobs/" + absent, send: []string{"Range", "bytes=5-"}, status: 404, code: "BLOB_UNKNOWN"},
		{rule: "RFC 9110 13.1.5 If-Range matches", path: big, send: []string{"Range", "bytes=1-2", "If-Range", `"` + w.big.Desc.Digest.String() + `"`}, status: 206},
		{rule: "RFC 9110 13.1.5 If-Range differs", path: big, send: []string{"Range", "bytes=1-2", "If-Range", `"x"`}, status: 200, body: bytesOf(w.big.Body)},

		{rule: "end-3 Pulling manifests: tag", path: "/v2/app/manifests/v1", status: 200, header: manifest, body: bytesOf(w.image.Body)},
		{rule: "end-3 digest", path: "/v2/app/manifests/" + man, status: 200, header: manifest, body: bytesOf(w.image.Body)},
		{rule: "end-3 HEAD tag", method: "HEAD", path: "/v2/app/manifests/v1", status: 200, header: manifest},
		{rule: "end-3 HEAD digest", method: "HEAD", path: "/v2/app/manifests/" + man, status: 200, header: manifest},
		{rule: "M3 range on a manifest", path: "/v2/app/manifests/v1", send: []string{"Range", "bytes=0-"}, status: 200, header: manifest, body: bytesOf(w.image.Body)},
		{rule: "M4 Accept of one other type", path: "/v2/app/manifests/v1", send: []string{"Accept", ocispec.MediaTypeImageIndex}, status: 200, header: manifest},
		{rule: "M4 Accept in several lines", path: "/v2/app/manifests/v1", send: []string{"Accept", "a/b", "Accept", "*/*"}, status: 200, header: manifest},
		{rule: "end-3 404 MANIFEST_UNKNOWN tag", path: "/v2/app/manifests/v2", status: 404, code: "MANIFEST_UNKNOWN"},
		{rule: "end-3 404 MANIFEST_UNKNOWN digest", path: "/v2/app/manifests/" + absent, status: 404, code: "MANIFEST_UNKNOWN"},
		{rule: "end-3 HEAD 404", method: "HEAD", path: "/v2/app/manifests/v2", status: 404},
		{rule: "end-3 404 NAME_UNKNOWN", path: "/v2/nobody/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
		{rule: "end-3 tag of 129", path: "/v2/app/manifests/" + strings.Repeat("a", 129), status: 400, code: "TAG_INVALID"},
		{rule: "end-3 name of 256", path: "/v2/" + strings.Repeat("a", 256) + "/manifests/v1", status: 400, code: "NAME_INVALID"},
		{rule: "end-3 upper case", path: "/v2/App/x/manifests/v1", status: 400, code: "NAME_INVALID"},
		{rule: "end-3 unknown algorithm", path: "/v2/app/manifests/md5:00000000000000000000000000000000", status: 400, code: "DIGEST_INVALID"},

		{rule: "end-8a Listing Tags", path: "/v2/app/tags/list", status: 200, header: http.Header{"Content-Type": {"application/json"}, "Link": nil}, body: bytesOf([]byte(`{"name":"app","tags":["v1"]}` + "\n"))},
		{rule: "end-8b n", path: "/v2/app/tags/list?n=1", status: 200, header: http.Header{"Link": nil}},
		{rule: "end-8b n=0 is an empty list without Link", path: "/v2/app/tags/list?n=0", status: 200, header: http.Header{"Link": nil}, body: bytesOf([]byte(`{"name":"app","tags":[]}` + "\n"))},
		{rule: "end-8b last", path: "/v2/app/tags/list?last=v1", status: 200, body: bytesOf([]byte(`{"name":"app","tags":[]}` + "\n"))},
		{rule: "end-8b bad n", path: "/v2/app/tags/list?n=-1", status: 400, code: "PAGINATION_NUMBER_INVALID"},
		{rule: "end-8a 404", path: "/v2/nobody/tags/list", status: 404, code: "NAME_UNKNOWN"},
		{rule: "end-8a HEAD", method: "HEAD", path: "/v2/app/tags/list", status: 200, header: http.Header{"Content-Length": {"29"}}},

		{rule: "end-12a Listing Referrers", path: "/v2/app/referrers/" + man, status: 200, header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}, "Oci-Filters-Applied": nil}},
		{rule: "end-12b filter", path: "/v2/app/referrers/" + man + "?artifactType=application/x-sbom", status: 200, header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}, "Oci-Filters-Applied": {"artifactType"}}},
		{rule: "end-12a none: an empty index, not 404", path: "/v2/app/referrers/" + absent, status: 200, body: bytesOf([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`))},
		{rule: "end-12a invalid digest", path: "/v2/app/referrers/v1", status: 400, code: "DIGEST_INVALID"},

		{rule: "end-4a push is refused", method: "POST", path: "/v2/app/blobs/uploads/", status: 405, header: http.Header{"Allow": {"GET, HEAD"}}, code: "UNSUPPORTED"},
		{rule: "end-7 PUT manifest is refused", method: "PUT", path: "/v2/app/manifests/v1", status: 405, code: "UNSUPPORTED"},
		{rule: "end-9 DELETE manifest is refused", method: "DELETE", path: "/v2/app/manifests/v1", status: 405, code: "UNSUPPORTED"},
		{rule: "end-10 DELETE blob is refused", method: "DELETE", path: big, status: 405, code: "UNSUPPORTED"},
		{rule: "end-13 upload status is refused", path: "/v2/app/blobs/uploads/1", status: 405, code: "UNSUPPORTED"},
		{rule: "catalog is refused", path: "/v2/_catalog", status: 405, code: "UNSUPPORTED"},
		{rule: "unknown path", path: "/v2/app/other/v1", status: 404, code: "UNKNOWN"},
		{rule: "unknown version", path: "/v1/app", status: 404, code: "UNKNOWN"},

		{rule: "R1 ns", path: "/v2/app/manifests/v1?ns=" + source, status: 200, header: manifest},
		{rule: "R2 ns, another name", path: "/v2/app/manifests/v1?ns=Mirror.Example", status: 200},
		{rule: "R1 ns with port", path: "/v2/only/second/manifests/v1?ns=" + other, status: 200},
		{rule: "R1 prefix", path: "/v2/" + source + "/app/manifests/v1", status: 200, header: manifest},
		{rule: "R1 prefix with port", path: "/v2/" + other + "/only/second/manifests/v1", status: 200},
		{rule: "R1 both (BuildKit)", path: "/v2/" + source + "/app/manifests/v1?ns=" + source, status: 200, header: manifest},
		{rule: "R1 both, two names of one mirror", path: "/v2/" + source + "/app/manifests/v1?ns=mirror.example", status: 200},
		{rule: "R1 both disagree", path: "/v2/" + source + "/app/manifests/v1?ns=" + other, status: 400, code: "NAME_INVALID"},
		{rule: "R1 unknown ns", path: "/v2/app/manifests/v1?ns=docker.io", status: 404, code: "NAME_UNKNOWN"},
		{rule: "R1 unknown ns on end-1", path: "/v2/?ns=docker.io", status: 404, code: "NAME_UNKNOWN"},
		{rule: "R1 unknown ns, HEAD", method: "HEAD", path: "/v2/app/manifests/v1?ns=169.254.169.254", status: 404},
		{rule: "R1 unknown prefix with port", path: "/v2/127.0.0.1:22/app/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
		{rule: "R1 unknown ECR prefix", path: "/v2/999999999999.dkr.ecr.eu-west-1.amazonaws.com/app/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
		{rule: "R1 a repository that looks like a host", path: "/v2/docker.io/library/nginx/manifests/v1", status: 200},
		{rule: "R1 the other mirror's content stays there", path: "/v2/only/second/manifests/v1", status: 404, code: "NAME_UNKNOWN"},
	} {
		t.Run(c.rule, func(t *testing.T) {
			if c.method == "" {
				c.method = "GET"
			}
			a := w.do(t, c.method, c.path, c.send...)
			if a.status != c.status || a.err != nil {
				t.Fatalf("%s %s: %d %v %.200s, want %d", c.method, c.path, a.status, a.err, a.body, c.status)
			}
			for k, want := range c.header {
				if d := cmp.Diff(want, a.header.Values(k)); d != "" && len(want)+len(a.header.Values(k)) > 0 {
					t.Errorf("%s: %s", k, d)
				}
			}
			if c.body != "" && bytesOf(a.body) != c.body {
				t.Errorf("%d bytes of another body %.200q", len(a.body), a.body)
			}
			if c.method == "HEAD" && len(a.body) > 0 {
				t.Errorf("HEAD has a body: %q", a.body)
			}
			if c.code != "" && a.code(t) != c.code {
				t.Errorf("code %s, want %s: %s", a.code(t), c.code, a.body)
			}
			if a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
				t.Error("no Docker-Distribution-Api-Version") // P2
			}
		})
	}

	t.Run("end-12b content", func(t *testing.T) {
		var ix ocispec.Index
		a := w.do(t, "GET", "/v2/app/referrers/"+man+"?artifactType=application/x-sbom")
		if err := json.Unmarshal(a.body, &ix); err != nil {
			t.Fatal(err)
		}
		want := ref.Desc
		want.ArtifactType, want.Annotations = "application/x-sbom", map[string]string{"org.example.test": "referrer"}
		if d := cmp.Diff([]registry.Descriptor{want}, ix.Manifests); d != "" {
			t.Error(d)
		}
	})
	t.Run("push says where to", func(t *testing.T) {
		if a := w.do(t, "POST", "/v2/app/blobs/uploads/"); !strings.Contains(string(a.body), "push to "+source) {
			t.Errorf("%s", a.body)
		}
	})
}

func str(n int) string { b, _ := json.Marshal(n); return string(b) }
