package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// authRig is a mirror whose clients need ECR tokens, between two emulated regions under the names that they listen on.
type authRig struct {
	*rig
	near, far string // the destination's and the source's host
	token     map[string]string
}

func newAuthRig(t *testing.T, auth string) *authRig {
	emu, at, err := startEmulator(emulatorOptions{
		registries: []string{demoSourceAccount + "/" + demoSourceRegion, demoDestinationAccount + "/" + demoDestinationRegion},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { emu.Close() })
	r := &authRig{rig: &rig{t: t, emu: emu, source: emu.Registry(demoSourceAccount, demoSourceRegion), destination: emu.Registry(demoDestinationAccount, demoDestinationRegion)},
		far: emu.RegistryHost(demoSourceAccount, demoSourceRegion), near: emu.RegistryHost(demoDestinationAccount, demoDestinationRegion)}
	r.token = map[string]string{"far": emu.Token(demoSourceAccount, demoSourceRegion), "near": emu.Token(demoDestinationAccount, demoDestinationRegion)}
	side := func(host, account, region string) string {
		return fmt.Sprintf("{registry: \"http://%s\", type: ecr, account: %q, region: %s, endpoint: %q}", host, account, region, at.Endpoint)
	}
	base := aws.Config{Region: demoSourceRegion, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return emu.Credentials(demoSourceAccount), nil
	})}
	r.app = startApp(t, fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ncache: {path: %s, size: 1GiB}\nauth: %s\nmirrors:\n- source: %s\n  destination: %s\n",
		t.TempDir(), auth, side(r.far, demoSourceAccount, demoSourceRegion), side(r.near, demoDestinationAccount, demoDestinationRegion)), &base)
	r.url = "http://" + r.app.registryAddr.String()
	if r.push, err = remote.New(remote.Options{Registry: "http://" + r.far, Username: "AWS", Password: r.token["far"]}); err != nil {
		t.Fatal(err)
	}
	if r.arrives, err = remote.New(remote.Options{Registry: "http://" + r.near, Username: "AWS", Password: r.token["near"]}); err != nil {
		t.Fatal(err)
	}
	return r
}

// get asks with a token, "" for none.
func (r *authRig) get(token, path string) int {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.url+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		req.SetBasicAuth("AWS", token)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res.Body.Close()
	return res.StatusCode
}

// Tokens of the emulated ECR, which knows region, account and policies, let their owners pull through the mirror what they
// may pull there, and are shown to no other region.
func TestECRTokens(t *testing.T) {
	r := newAuthRig(t, "{ecr: true}")
	img := registrytest.Image(1, 3000)
	r.seed("app", "v1", img)
	blob := img.Blobs[1].Desc.Digest.String()
	ns := "?ns=" + r.far
	for _, c := range []struct {
		name, token, path string
		want              int
		region            string // the only one whose registry is asked by the front; "" none
	}{
		{"none", "", "/v2/", 401, ""},
		{"login", r.token["near"], "/v2/", 200, demoDestinationRegion},
		{"login with the other region's", r.token["far"], "/v2/", 401, demoDestinationRegion},
		{"by ns", r.token["far"], "/v2/app/manifests/v1" + ns, 200, demoSourceRegion},
		{"its blob", r.token["far"], "/v2/app/blobs/" + blob + ns, 200, demoSourceRegion},
		{"by ns with the other region's", r.token["near"], "/v2/app/manifests/v1" + ns, 401, demoSourceRegion},
		{"garbage", "garbage", "/v2/app/manifests/v1" + ns, 401, demoSourceRegion},
	} {
		r.emu.ResetCalls()
		if got := r.get(c.token, c.path); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
		for _, call := range r.emu.Calls() {
			front := strings.Contains(call, " GET ") && !strings.Contains(call, " GET layer") // the mirror itself uses the control API
			if front && !strings.HasPrefix(call, c.region+" ") {
				t.Errorf("%s: the token was shown to another: %s", c.name, call)
			}
		}
	}
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	if got := r.get(r.token["near"], "/v2/app/manifests/v1"); got != 200 {
		t.Errorf("direct, once it is at the destination: %d", got)
	}

	t.Run("outage", func(t *testing.T) {
		r.source.SetDown(true)
		defer r.source.SetDown(false)
		if got := r.get(r.token["far"], "/v2/app/blobs/"+blob+ns); got != 200 {
			t.Errorf("a token that had a yes a moment ago: %d", got)
		}
		if got := r.get(r.emu.Token(demoSourceAccount, demoSourceRegion), "/v2/app/blobs/"+blob+ns); got != 503 {
			t.Errorf("a token that nobody has seen: %d, want 503", got)
		}
	})
	t.Run("a policy", func(t *testing.T) {
		r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op == "GET manifest" && strings.HasPrefix(c.Target, "secret") {
				return ecrtest.Fault{Status: 403, Message: "User: x is not authorized to perform: ecr:BatchGetImage"}
			}
			return ecrtest.Fault{}
		})
		defer r.emu.Fault(nil)
		if got := r.get(r.token["far"], "/v2/secret/manifests/v1"+ns); got != 403 {
			t.Errorf("%d, want 403", got)
		}
	})
}

// With blobs: redirect the layer comes from the destination's own store once it is there, and through the mirror before.
func TestRedirectToDestination(t *testing.T) {
	r := newRig(t, "  blobs: redirect\n")
	img := registrytest.Image(1, 300<<10)
	r.seed("app", "v1", img)
	layer := img.Blobs[1].Desc.Digest
	var redirects []string
	client := &http.Client{CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		redirects = append(redirects, req.URL.Host)
		return nil
	}}
	pull := func() {
		t.Helper()
		res, err := client.Get(r.url + "/v2/app/blobs/" + layer.String())
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(body, img.Blobs[1].Body) {
			t.Errorf("%d: %d bytes, %v", res.StatusCode, len(body), err)
		}
	}
	if pull(); len(redirects) != 0 {
		t.Errorf("cold: sent to %v", redirects)
	}
	if err := r.pulled("app", "v1"); err != nil {
		t.Fatal(err)
	}
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	if pull(); len(redirects) != 1 || redirects[0] != strings.TrimPrefix(r.emu.LayerURL(), "http://") {
		t.Errorf("warm: sent to %v, want %s", redirects, r.emu.LayerURL())
	}
}
