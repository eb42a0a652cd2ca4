package ecrtest_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestLayerHost(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 1000)
	layer := img.Blobs[1]
	push(t, c, "app", "v1", img)
	v := v2Client(t, emu, c)
	resp, _ := v.do("GET", "/v2/app/blobs/"+layer.Desc.Digest.String(), nil, "Range", "bytes=0-9")
	u := resp.Header.Get("Location")
	if resp.StatusCode != http.StatusTemporaryRedirect || !strings.HasPrefix(u, emu.LayerURL()) || !strings.Contains(u, "X-Amz-Expires=3600") {
		t.Fatalf("redirect: %d %q", resp.StatusCode, u)
	}
	token := v.token
	v.token = "" // the layer host takes none
	for _, tc := range []struct {
		name, method, url string
		header            []string
		status            int
		want              string // body, or a part of it for errors
	}{
		{"whole", "GET", u, nil, 200, string(layer.Body)},
		{"range", "GET", u, []string{"Range", "bytes=10-19"}, 206, string(layer.Body[10:20])},
		{"open range", "GET", u, []string{"Range", "bytes=990-"}, 206, string(layer.Body[990:])},
		{"suffix", "GET", u, []string{"Range", "bytes=-5"}, 206, string(layer.Body[995:])},
		{"several ranges", "GET", u, []string{"Range", "bytes=0-1,5-6"}, 200, string(layer.Body)},
		{"past the end", "GET", u, []string{"Range", "bytes=1000-"}, 416, "invalid range"},
		{"HEAD", "HEAD", u, nil, 403, ""},
		{"authorized twice", "GET", u, []string{"Authorization", "Basic " + token}, 400, "<Code>InvalidArgument</Code>"},
		{"signature", "GET", u[:len(u)-1] + "0", nil, 403, "SignatureDoesNotMatch"},
		{"lifetime", "GET", strings.Replace(u, "Expires=3600", "Expires=9999", 1), nil, 403, "SignatureDoesNotMatch"},
		{"other layer", "GET", strings.Replace(u, layer.Desc.Digest.Encoded(), img.Blobs[0].Desc.Digest.Encoded(), 1), nil, 403, "SignatureDoesNotMatch"},
	} {
		resp, body := v.do(tc.method, tc.url, nil, tc.header...)
		if resp.StatusCode != tc.status || tc.status < 300 && body != tc.want || !strings.Contains(body, tc.want) {
			t.Errorf("%s: %d, %d bytes, %.200q", tc.name, resp.StatusCode, len(body), body)
		}
	}
	want := []ecrtest.Read{
		{Repo: "app", Length: 1000, Sent: 1000},
		{Repo: "app", Range: "bytes=10-19", Offset: 10, Length: 10, Sent: 10},
		{Repo: "app", Range: "bytes=990-", Offset: 990, Length: 10, Sent: 10},
		{Repo: "app", Range: "bytes=-5", Offset: 995, Length: 5, Sent: 5},
		{Repo: "app", Length: 1000, Sent: 1000},
	}
	if d := cmp.Diff(want, emu.Registry(account, region).LayerReads(layer.Desc.Digest)); d != "" {
		t.Error(d)
	}
	if n := emu.Registry(account, region).LayerBytes(); n != 2025 {
		t.Errorf("%d bytes in all", n)
	}

	clk.Advance(time.Hour - 2*time.Second)
	if resp, _ := v.do("GET", u, nil); resp.StatusCode != 200 {
		t.Errorf("just before the end: %d", resp.StatusCode)
	}
	clk.Advance(2 * time.Second)
	if resp, body := v.do("GET", u, nil); resp.StatusCode != 403 || !strings.Contains(body, "Request has expired") {
		t.Errorf("expired: %d %s", resp.StatusCode, body)
	}
}

func TestFaults(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 100_000)
	push(t, c, "app", "v1", img)
	layer := img.Blobs[1]
	v := v2Client(t, emu, c)
	get := func(f ecrtest.Fault) (int, string, error) {
		resp, _ := v.do("GET", "/v2/app/blobs/"+layer.Desc.Digest.String(), nil)
		emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op == "GET layer" {
				return f
			}
			return ecrtest.Fault{}
		})
		defer emu.Fault(nil)
		h := httpClient(t)
		h.Timeout = 300 * time.Millisecond
		resp, err := h.Get(resp.Header.Get("Location"))
		if err != nil {
			return 0, "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b), err
	}
	if s, b, err := get(ecrtest.Fault{}); s != 200 || b != string(layer.Body) || err != nil {
		t.Error("intact:", s, len(b), err)
	}
	if s, b, err := get(ecrtest.Fault{Damage: ecrtest.Cut, At: 5000}); s != 200 || b != string(layer.Body[:5000]) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("cut:", s, len(b), err)
	}
	if _, _, err := get(ecrtest.Fault{Damage: ecrtest.Reset, At: 5000}); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Error("reset:", err)
	}
	if s, b, err := get(ecrtest.Fault{Damage: ecrtest.Corrupt, At: 70_000}); s != 200 || len(b) != 100_000 || b == string(layer.Body) || b[:70_000] != string(layer.Body[:70_000]) || b[70_001:] != string(layer.Body[70_001:]) || err != nil {
		t.Error("corrupt:", s, len(b), err)
	}
	if _, b, err := get(ecrtest.Fault{Damage: ecrtest.Stall, At: 10}); b != string(layer.Body[:10]) || err == nil {
		t.Error("stall:", len(b), err)
	}
	if s, b, _ := get(ecrtest.Fault{Status: 503}); s != 503 || !strings.Contains(b, "SlowDown") {
		t.Error("status:", s, b)
	}

	// A control operation that fails, before and after taking effect.
	one := func(op string, f ecrtest.Fault) {
		emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op == op && c.Nth == 0 {
				return f
			}
			return ecrtest.Fault{}
		})
	}
	emu.ResetCalls()
	one("PutImage", ecrtest.Fault{Status: 500})
	if err := put(t, c, "app", "before", img); code(err) != "ServerException" {
		t.Error(err)
	}
	if err := put(t, c, "app", "before", img); err != nil {
		t.Error("it had no effect, so now it is new:", err)
	}
	one("PutImage", ecrtest.Fault{Status: 400, Code: "ThrottlingException", After: true})
	if err := put(t, c, "app", "after", img); code(err) != "ThrottlingException" {
		t.Error(err)
	}
	if err := put(t, c, "app", "after", img); code(err) != "ImageAlreadyExistsException" {
		t.Error("it had its effect:", err)
	}
	one("PutImage", ecrtest.Fault{HangUp: true, After: true})
	if err := put(t, c, "app", "silent", img); err == nil || code(err) != "" {
		t.Error(err)
	}
	one("HEAD manifest", ecrtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}})
	if resp, _ := v.do("HEAD", "/v2/app/manifests/v1", nil); resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "7" {
		t.Error(resp.Status)
	}
	emu.Fault(nil)

	r := emu.Registry(account, region)
	r.SetDown(true)
	if resp, _ := v.do("GET", "/v2/", nil); resp.StatusCode != 503 {
		t.Error(resp.Status)
	}
	if err := put(t, c, "app", "v3", img); code(err) != "ServerException" {
		t.Error(err)
	}
	r.SetDown(false)
	r.SetUnreachable(true)
	if err := put(t, c, "app", "v3", img); err == nil || code(err) != "" {
		t.Error(err)
	}
	r.SetUnreachable(false)
	if err := put(t, c, "app", "v3", img); err != nil {
		t.Error(err)
	}
}
