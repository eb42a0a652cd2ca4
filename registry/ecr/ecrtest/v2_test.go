package ecrtest_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestTokens(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	c := client(t, emu, emu.Credentials(account))
	out, err := c.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	data := out.AuthorizationData[0]
	if d := data.ExpiresAt.Sub(clk.Now()); d < 12*time.Hour-2*time.Second || d > 12*time.Hour {
		t.Errorf("expires in %v", d)
	}
	if *data.ProxyEndpoint != "https://111122223333.dkr.ecr.us-west-2.amazonaws.com" {
		t.Error(*data.ProxyEndpoint)
	}
	raw, _ := base64.StdEncoding.DecodeString(*data.AuthorizationToken)
	_, pw, _ := strings.Cut(string(raw), ":")
	inner, _ := base64.StdEncoding.DecodeString(pw)
	var shape map[string]any
	if json.Unmarshal(inner, &shape); shape["type"] != "DATA_KEY" || shape["version"] != "2" || len(*data.AuthorizationToken) < 1500 || len(*data.AuthorizationToken) > 4096 {
		t.Errorf("%d bytes: %s", len(*data.AuthorizationToken), inner)
	}

	v := v2Client(t, emu, c)
	if resp, _ := v.do("GET", "/v2/", nil); resp.StatusCode != 200 || resp.Header.Get("Docker-Distribution-Api-Version") != "registry/2.0" {
		t.Error(resp.Status)
	}
	good := v.token
	for _, bad := range []string{"", "xxx", base64.StdEncoding.EncodeToString([]byte("AWS:nonsense")), base64.StdEncoding.EncodeToString([]byte("root:" + pw)),
		base64.StdEncoding.EncodeToString([]byte("AWS:" + base64.StdEncoding.EncodeToString([]byte(strings.Replace(string(inner), `"payload":"A`, `"payload":"B`, 1)))[:40]))} {
		v.token = bad
		resp, body := v.do("GET", "/v2/app/manifests/v1", nil)
		if resp.StatusCode != 401 || body != "Not Authorized\n" || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" ||
			resp.Header.Get("Www-Authenticate") != `Basic realm="`+v.base+`/",service="ecr.amazonaws.com"` {
			t.Errorf("%.20s: %d %q %v", bad, resp.StatusCode, body, resp.Header)
		}
	}
	v.token = good
	elsewhere := *v
	elsewhere.base = "http://" + emu.RegistryHost(account, "eu-central-1")
	if resp, body := elsewhere.do("GET", "/v2/", nil); resp.StatusCode != 403 || !strings.Contains(body, "Your authorization token has expired") {
		t.Errorf("other region: %d %s", resp.StatusCode, body)
	}
	clk.Advance(12 * time.Hour)
	resp, body := v.do("GET", "/v2/", nil)
	if want := `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`; resp.StatusCode != 403 || body != want || resp.Header.Get("Www-Authenticate") != "" {
		t.Errorf("expired: %d %s", resp.StatusCode, body)
	}
}

func TestV2PushAndPull(t *testing.T) {
	emu := start(t, ecrtest.Options{PartSize: 1000})
	v := v2Client(t, emu, client(t, emu, emu.Credentials(account)))
	img := registrytest.Image(1, 2500)
	blob := img.Blobs[1]
	if resp, body := v.do("POST", "/v2/app/blobs/uploads/", nil); resp.StatusCode != 404 || !strings.Contains(body, `"NAME_UNKNOWN","message":"The repository with name 'app' does not exist in the registry with id '111122223333'"`) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	emu.Registry(account, region).CreateRepository("app")
	session := func() string {
		t.Helper()
		resp, _ := v.do("POST", "/v2/app/blobs/uploads/", nil)
		loc := resp.Header.Get("Location")
		if resp.StatusCode != 202 || loc != v.base+"/v2/app/blobs/uploads/"+resp.Header.Get("Docker-Upload-Uuid") || resp.Header.Get("Range") != "0-0" {
			t.Fatalf("%d %v", resp.StatusCode, resp.Header)
		}
		return loc
	}
	check := func(what string, resp *http.Response, body string, status int, want string) {
		t.Helper()
		if resp.StatusCode != status || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s, want %d %s", what, resp.StatusCode, body, status, want)
		}
	}
	d := blob.Desc.Digest.String()
	loc := session()
	resp, body := v.do("PUT", loc+"?digest="+digest.FromString("").String(), nil)
	check("empty", resp, body, 400, `BLOB_UPLOAD_INVALID`)
	resp, body = v.do("PATCH", loc, blob.Body[:1200], "Content-Range", "0-1199")
	check("first patch", resp, body, 201, "")
	if r := resp.Header.Get("Range"); r != "0-999" {
		t.Errorf("stale range: %s", r)
	}
	resp, body = v.do("PATCH", loc, blob.Body[:1200], "Content-Range", "0-1199")
	check("again", resp, body, 416, "First byte of the layer part is 0 instead of 1200")
	resp, body = v.do("PUT", loc+"?digest="+d, blob.Body[1200:], "Content-Range", "1200-2499")
	check("last", resp, body, 201, "")
	resp, body = v.do("PUT", session()+"?digest="+d, []byte("other"))
	check("digest", resp, body, 400, "None of the provided layer digests match the calculated layer digest")
	resp, body = v.do("PUT", session()+"?digest="+d, blob.Body)
	check("already there", resp, body, 201, "")
	resp, body = v.do("GET", session(), nil)
	check("status", resp, body, 404, "")

	put := func(n registrytest.Node, ref string) (*http.Response, string) {
		return v.do("PUT", "/v2/app/manifests/"+ref, n.Body, "Content-Type", n.Desc.MediaType)
	}
	resp, body = put(img, "v1")
	check("config missing", resp, body, 400, "MANIFEST_BLOB_UNKNOWN")
	resp, body = v.do("PUT", session()+"?digest="+img.Desc.Digest.String(), img.Body) // wrong kind, harmless
	check("any bytes", resp, body, 201, "")
	v.do("PUT", session()+"?digest="+img.Blobs[0].Desc.Digest.String(), img.Blobs[0].Body)
	resp, body = v.do("GET", "/v2/app/blobs/"+d, nil)
	check("not referenced yet", resp, body, 404, "BLOB_UNKNOWN")
	for range 2 {
		resp, body = put(img, "v1")
		check("put", resp, body, 201, "")
	}
	resp, body = put(registrytest.Index(registrytest.Image(9, 1)), "ix")
	check("child missing", resp, body, 400, "MANIFEST_BLOB_UNKNOWN")
	resp, body = v.do("PUT", "/v2/app/manifests/x", []byte(`{"schemaVersion":2}`), "Content-Type", "application/vnd.example")
	check("schema", resp, body, 405, "Invalid JSON syntax")

	resp, _ = v.do("HEAD", "/v2/app/manifests/v1", nil)
	if _, sizes := resp.Header["Sizes"]; resp.StatusCode != 200 || resp.Header.Get("Docker-Content-Digest") != img.Desc.Digest.String() || resp.ContentLength != img.Desc.Size || !sizes {
		t.Errorf("HEAD: %d %v", resp.StatusCode, resp.Header)
	}
	resp, body = v.do("GET", "/v2/app/manifests/"+img.Desc.Digest.String(), nil, "Accept", img.Desc.MediaType)
	if body != string(img.Body) || resp.Header.Get("Content-Type") != img.Desc.MediaType || resp.Header.Get("Docker-Content-Digest") != "" {
		t.Errorf("GET: %d %v", resp.StatusCode, resp.Header)
	}
	resp, body = v.do("GET", "/v2/app/manifests/v1", nil, "Accept", registry.MediaTypeDockerManifest)
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != registry.MediaTypeDockerManifest || digest.FromString(body) == img.Desc.Digest || !strings.Contains(body, "diff.tar.gzip") {
		t.Errorf("converted: %d %s", resp.StatusCode, body)
	}
	resp, body = v.do("GET", "/v2/app/manifests/"+img.Desc.Digest.String(), nil, "Accept", registry.MediaTypeDockerManifest)
	check("not converted by digest", resp, body, 404, "Requested image not found")
	resp, _ = v.do("HEAD", "/v2/app/blobs/"+d, nil)
	if resp.StatusCode != 200 || resp.ContentLength != 2500 {
		t.Errorf("HEAD blob: %d", resp.StatusCode)
	}

	sig := registrytest.Referrer(img.Desc, "application/x.sig", []byte("sig"))
	for _, b := range sig.Blobs {
		v.do("PUT", session()+"?digest="+b.Desc.Digest.String(), b.Body)
	}
	resp, body = put(sig, sig.Desc.Digest.String())
	check("referrer", resp, body, 201, "")
	if resp.Header.Get("Oci-Subject") != img.Desc.Digest.String() {
		t.Error("no OCI-Subject")
	}
	resp, body = v.do("GET", "/v2/app/referrers/"+img.Desc.Digest.String()+"?artifactType=application/x.sig", nil)
	check("referrers", resp, body, 200, sig.Desc.Digest.String())
	resp, body = v.do("GET", "/v2/app/referrers/"+img.Desc.Digest.String()+"?artifactType=no", nil)
	check("referrers of another type", resp, body, 200, `"manifests":[]`)

	for _, tc := range []struct {
		method, path string
		status       int
	}{{"GET", "/v2/_catalog", 405}, {"GET", "/v2/app/blobs/", 405}, {"DELETE", "/v2/app/blobs/" + d, 405}, {"GET", "/v2/UP/manifests/x", 405},
		{"GET", "/v2/app/tags/list?n=1001", 405}, {"GET", "/v2/none/tags/list", 404}, {"DELETE", "/v2/app/manifests/none", 404}} {
		resp, body := v.do(tc.method, tc.path, nil)
		check(tc.method+" "+tc.path, resp, body, tc.status, "")
	}
	resp, body = v.do("DELETE", "/v2/app/manifests/"+img.Desc.Digest.String(), nil)
	check("delete", resp, body, 202, "")
	resp, body = v.do("GET", "/v2/app/manifests/v1", nil)
	check("deleted", resp, body, 404, "MANIFEST_UNKNOWN")
}

func TestV2Tags(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 10)
	push(t, c, "app", "t0", img)
	for i := 1; i < 130; i++ {
		if err := put(t, c, "app", fmt.Sprintf("t%d", i), img); err != nil {
			t.Fatal(err)
		}
	}
	v := v2Client(t, emu, c)
	seen, sizes := map[string]bool{}, []int{}
	for next := v.base + "/v2/app/tags/list"; next != ""; {
		resp, body := v.do("GET", next, nil)
		var list struct{ Tags []string }
		if err := json.Unmarshal([]byte(body), &list); err != nil || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Fatal(err, resp.Header)
		}
		sizes = append(sizes, len(list.Tags))
		for _, tag := range list.Tags {
			seen[tag] = true
		}
		next, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	if d := cmp.Diff([]int{100, 30}, sizes); d != "" || len(seen) != 130 {
		t.Error(len(seen), d)
	}
}

func TestMount(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 10)
	push(t, c, "from", "v1", img)
	emu.Registry(account, region).CreateRepository("to")
	v := v2Client(t, emu, c)
	q := url.Values{"mount": {img.Blobs[1].Desc.Digest.String()}, "from": {"from"}}.Encode()
	if resp, _ := v.do("POST", "/v2/to/blobs/uploads/?"+q, nil); resp.StatusCode != 202 {
		t.Errorf("setting off: %d", resp.StatusCode)
	}
	if _, err := c.PutAccountSetting(t.Context(), &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")}); err != nil {
		t.Fatal(err)
	}
	if resp, _ := v.do("POST", "/v2/to/blobs/uploads/?"+q, nil); resp.StatusCode != 201 || resp.Header.Get("Docker-Content-Digest") == "" {
		t.Errorf("setting on: %d", resp.StatusCode)
	}
	if resp, _ := v.do("HEAD", "/v2/to/blobs/"+img.Blobs[1].Desc.Digest.String(), nil); resp.StatusCode != 200 {
		t.Errorf("mounted: %d", resp.StatusCode)
	}
}

func TestPullOnlyRoleCannotHeadBlobs(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	img := registrytest.Image(1, 10)
	push(t, client(t, emu, emu.Credentials(account)), "app", "v1", img)
	puller := emu.Role(account, "puller", "ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
	v := v2Client(t, emu, client(t, emu, puller))
	blob := "/v2/app/blobs/" + img.Blobs[0].Desc.Digest.String()
	var got []int
	for _, do := range [][2]string{{"GET", "/v2/app/manifests/v1"}, {"GET", blob}, {"HEAD", blob}, {"POST", "/v2/app/blobs/uploads/"}} {
		resp, _ := v.do(do[0], do[1], nil)
		got = append(got, resp.StatusCode)
	}
	if d := cmp.Diff([]int{200, 307, 403, 403}, got); d != "" {
		t.Error(d)
	}
}

func TestHostRouting(t *testing.T) {
	emu, err := ecrtest.New(ecrtest.Options{Accounts: []string{account}})
	if err != nil {
		t.Fatal(err)
	}
	defer emu.Close()
	for host, want := range map[string]int{
		"111122223333.dkr.ecr.us-west-2.amazonaws.com":      401,
		"111122223333.dkr-ecr.us-west-2.on.aws":             401,
		"111122223333.dkr.ecr.us-west-2.amazonaws.com:5000": 401,
		"999999999999.dkr.ecr.us-west-2.amazonaws.com":      404,
		"127.0.0.1": 404,
		"111122223333.dkr.ecr.us-west-2.amazonaws.com.evil.": 404,
	} {
		r := httptest.NewRequest("GET", "http://"+host+"/v2/", nil)
		w := httptest.NewRecorder()
		emu.Handler().ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", host, w.Code, want)
		}
	}
}
