package ecrtest_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// TestConformance holds the v2 plane against the OCI distribution specification 1.1, category by category (its "Conformance": pull,
// push, content discovery, content management). A row is a requirement and what ECR answers to it; why says where and why ECR does not
// do what the specification asks for. Rows without it conform.
func TestConformance(t *testing.T) {
	img, other := registrytest.Image(1, 2500), registrytest.Image(2, 10)
	sig := registrytest.Referrer(img.Desc, "application/x.sig", []byte("sig"))
	layer := img.Blobs[1]
	d := layer.Desc.Digest.String()
	type answer = *http.Response
	is := func(status int) func(answer, string) bool {
		return func(r answer, _ string) bool { return r.StatusCode == status }
	}
	has := func(status int, header, value string) func(answer, string) bool {
		return func(r answer, _ string) bool {
			return r.StatusCode == status && (r.Header.Get(header) == value || value == "*" && r.Header.Get(header) != "")
		}
	}
	code := func(status int, code string) func(answer, string) bool {
		return func(r answer, body string) bool {
			return r.StatusCode == status && strings.Contains(body, `"code":"`+code+`"`)
		}
	}
	session := func(v *v2) string {
		r, _ := v.do("POST", "/v2/new/blobs/uploads/", nil)
		return r.Header.Get("Location")
	}
	const octets = "application/octet-stream"
	for _, row := range []struct {
		category, requirement string
		do                    func(v *v2) (answer, string)
		want                  func(answer, string) bool
		why                   string
	}{
		{"base", "GET /v2/ is 200", func(v *v2) (answer, string) { return v.do("GET", "/v2/", nil) }, is(200), ""},

		{"pull", "GET of a manifest is 200 with its media type", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/manifests/v1", nil) }, has(200, "Content-Type", img.Desc.MediaType), ""},
		{"pull", "GET of a manifest should have Docker-Content-Digest", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/manifests/v1", nil) }, has(200, "Docker-Content-Digest", ""),
			"only HEAD has it (oras-project/oras-go#237)"},
		{"pull", "HEAD of a manifest has Docker-Content-Digest", func(v *v2) (answer, string) { return v.do("HEAD", "/v2/app/manifests/v1", nil) }, has(200, "Docker-Content-Digest", img.Desc.Digest.String()), ""},
		{"pull", "a manifest that is not there is 404 MANIFEST_UNKNOWN", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/manifests/none", nil) }, code(404, "MANIFEST_UNKNOWN"), ""},
		{"pull", "a repository that is not there is 404 NAME_UNKNOWN", func(v *v2) (answer, string) { return v.do("GET", "/v2/none/manifests/v1", nil) }, code(404, "NAME_UNKNOWN"), ""},
		{"pull", "GET of a blob is 200, or a redirect", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/blobs/"+d, nil) }, has(307, "Location", "*"), ""},
		{"pull", "HEAD of a blob is 200 with its length", func(v *v2) (answer, string) { return v.do("HEAD", "/v2/app/blobs/"+d, nil) }, has(200, "Content-Length", "2500"), ""},
		{"pull", "a range of a blob is 206", func(v *v2) (answer, string) {
			r, _ := v.do("GET", "/v2/app/blobs/"+d, nil)
			bare := *v
			bare.token = ""
			return bare.do("GET", r.Header.Get("Location"), nil, "Range", "bytes=10-19")
		}, has(206, "Content-Range", "bytes 10-19/2500"), ""},

		{"push", "POST is 202 with Location", func(v *v2) (answer, string) { return v.do("POST", "/v2/new/blobs/uploads/", nil) }, has(202, "Location", "*"), ""},
		{"push", "POST then PUT is 201 with Location", func(v *v2) (answer, string) {
			return v.do("PUT", session(v)+"?digest="+d, layer.Body, "Content-Type", octets)
		}, has(201, "Location", "*"), ""},
		{"push", "PATCH is 202 with Range", func(v *v2) (answer, string) { return v.do("PATCH", session(v), layer.Body, "Content-Type", octets) }, has(201, "Range", "*"),
			"201, and the range sticks at the first part (aws/containers-roadmap#2831)"},
		{"push", "an empty PUT closes a session", func(v *v2) (answer, string) {
			u := session(v)
			v.do("PATCH", u, layer.Body, "Content-Type", octets)
			return v.do("PUT", u+"?digest="+d, nil)
		}, is(201), ""},
		{"push", "a chunk out of order is 416", func(v *v2) (answer, string) {
			u := session(v)
			v.do("PATCH", u, layer.Body[:10], "Content-Range", "0-9")
			return v.do("PATCH", u, layer.Body[:10], "Content-Range", "0-9")
		}, code(416, "BLOB_UPLOAD_INVALID"), ""},
		{"push", "GET of a session is 204 with Range", func(v *v2) (answer, string) { return v.do("GET", session(v), nil) }, is(404), "sessions cannot be resumed (dotnet/sdk#33019)"},
		{"push", "a wrong digest is 400", func(v *v2) (answer, string) {
			return v.do("PUT", session(v)+"?digest="+digest.FromString("x").String(), layer.Body)
		}, code(400, "BLOB_UPLOAD_INVALID"), ""},
		{"push", "an empty blob is 201", func(v *v2) (answer, string) {
			return v.do("PUT", session(v)+"?digest="+digest.FromBytes(nil).String(), nil)
		}, code(400, "BLOB_UPLOAD_INVALID"),
			"ECR has no empty layers (devcontainers/cli#814)"},
		{"push", "a single POST is 201, or 202 with a session", func(v *v2) (answer, string) {
			return v.do("POST", "/v2/new/blobs/uploads/?digest="+d, layer.Body, "Content-Type", octets)
		}, is(202), ""},
		{"push", "a mount is 201, or 202 with a session", func(v *v2) (answer, string) { return v.do("POST", "/v2/new/blobs/uploads/?mount="+d+"&from=app", nil) }, is(202), ""},
		{"push", "a mount without from is 202 or 201", func(v *v2) (answer, string) { return v.do("POST", "/v2/new/blobs/uploads/?mount="+d, nil) }, is(202), ""},
		{"push", "a repository that is not there comes into being", func(v *v2) (answer, string) { return v.do("POST", "/v2/none/blobs/uploads/", nil) }, code(404, "NAME_UNKNOWN"),
			"only where a repository creation template says so"},
		{"push", "PUT of a manifest is 201 with Location", func(v *v2) (answer, string) {
			return v.do("PUT", "/v2/app/manifests/v2", img.Body, "Content-Type", img.Desc.MediaType)
		}, has(201, "Location", "*"), ""},
		{"push", "a manifest whose blobs are missing is 404 MANIFEST_BLOB_UNKNOWN, or accepted", func(v *v2) (answer, string) {
			return v.do("PUT", "/v2/app/manifests/o", other.Body, "Content-Type", other.Desc.MediaType)
		}, code(400, "MANIFEST_BLOB_UNKNOWN"), "400: the front's status of ECR's LayersNotFoundException"},
		{"push", "a manifest whose digest differs is 400", func(v *v2) (answer, string) {
			return v.do("PUT", "/v2/app/manifests/"+digest.FromString("x").String(), img.Body, "Content-Type", img.Desc.MediaType)
		}, code(400, "MANIFEST_INVALID"), ""},
		{"push", "a manifest that is none is 400 MANIFEST_INVALID", func(v *v2) (answer, string) {
			return v.do("PUT", "/v2/app/manifests/x", []byte("{}"), "Content-Type", img.Desc.MediaType)
		}, code(405, "UNSUPPORTED"),
			"405: the front passes on an invalid parameter"},
		{"push", "a manifest with a subject has OCI-Subject", func(v *v2) (answer, string) {
			return v.do("PUT", "/v2/app/manifests/"+sig.Desc.Digest.String(), sig.Body, "Content-Type", sig.Desc.MediaType)
		}, has(201, "OCI-Subject", img.Desc.Digest.String()), ""},
		{"push", "a subject may be absent", func(v *v2) (answer, string) {
			orphan := registrytest.Referrer(other.Desc, "application/x.sig", []byte("sig"))
			return v.do("PUT", "/v2/app/manifests/"+orphan.Desc.Digest.String(), orphan.Body, "Content-Type", orphan.Desc.MediaType)
		}, is(201), ""},
		{"push", "a manifest of 4 MiB is accepted", func(v *v2) (answer, string) {
			big := bytes.Replace(img.Body, []byte("{"), []byte(`{"annotations":{"pad":"`+strings.Repeat("0", 4<<20-len(img.Body)-26)+`"},`), 1)
			return v.do("PUT", "/v2/app/manifests/big", big, "Content-Type", img.Desc.MediaType)
		}, is(201), ""},

		{"discovery", "tags are listed", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/tags/list", nil) }, func(r answer, body string) bool {
			var list struct{ Tags []string }
			return r.StatusCode == 200 && json.Unmarshal([]byte(body), &list) == nil && len(list.Tags) > 1
		}, ""},
		{"discovery", "tags are in lexical order, and last is a tag", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/tags/list?n=1", nil) }, func(r answer, _ string) bool {
			return r.StatusCode == 200 && strings.Contains(r.Header.Get("Link"), `rel="next"`) && !strings.Contains(r.Header.Get("Link"), "last=v1")
		}, "in ECR's order; last is an opaque token, and Link is absolute (google/go-containerregistry#681)"},
		{"discovery", "referrers are an index", func(v *v2) (answer, string) { return v.do("GET", "/v2/app/referrers/"+img.Desc.Digest.String(), nil) }, has(200, "Content-Type", ocispec.MediaTypeImageIndex), ""},
		{"discovery", "nothing refers: an empty index", func(v *v2) (answer, string) {
			return v.do("GET", "/v2/app/referrers/"+digest.FromString("x").String(), nil)
		}, func(r answer, body string) bool {
			return r.StatusCode == 200 && strings.Contains(body, `"manifests":[]`)
		}, ""},
		{"discovery", "a filter says that it was applied", func(v *v2) (answer, string) {
			return v.do("GET", "/v2/app/referrers/"+img.Desc.Digest.String()+"?artifactType=application/x.sig", nil)
		}, has(200, "OCI-Filters-Applied", "artifactType"), ""},

		{"management", "DELETE of a tag is 202", func(v *v2) (answer, string) { return v.do("DELETE", "/v2/app/manifests/v2", nil) }, is(202), ""},
		{"management", "DELETE of a manifest is 202", func(v *v2) (answer, string) {
			return v.do("DELETE", "/v2/app/manifests/"+img.Desc.Digest.String(), nil)
		}, is(202), ""},
		{"management", "DELETE of a manifest that is not there is 404", func(v *v2) (answer, string) {
			return v.do("DELETE", "/v2/app/manifests/"+digest.FromString("x").String(), nil)
		}, is(404), ""},
		{"management", "DELETE of a blob is 202", func(v *v2) (answer, string) { return v.do("DELETE", "/v2/app/blobs/"+d, nil) }, is(405), "405, which the specification allows: ECR collects what no image refers to"},
		{"management", "DELETE of a session is 204", func(v *v2) (answer, string) { return v.do("DELETE", session(v), nil) }, is(204), ""},
		{"management", "the catalog", func(v *v2) (answer, string) { return v.do("GET", "/v2/_catalog", nil) }, is(405), "not of the specification; ECR has DescribeRepositories"},
	} {
		emu := start(t, ecrtest.Options{})
		c := client(t, emu, emu.Credentials(account))
		push(t, c, "app", "v1", img)
		put(t, c, "app", "v2", img)
		push(t, c, "app", "", sig)
		emu.Registry(account, region).CreateRepository("new")
		resp, body := row.do(v2Client(t, emu, c))
		if !row.want(resp, body) {
			t.Errorf("%s: %s: %d %v %.200s", row.category, row.requirement, resp.StatusCode, resp.Header, body)
		}
		emu.Close()
	}
}
