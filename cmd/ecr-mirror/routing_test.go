package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// plain serves a memory registry, which counts what it is asked, and returns its URL.
func plain(t *testing.T) (*mem.Registry, *registrytest.Faulty, string) {
	m := mem.New()
	f := registrytest.NewFaulty(m)
	srv := httptest.NewServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{"plain.example"}, Reader: f, Lister: f}}}))
	t.Cleanup(srv.Close)
	return m, f, srv.URL
}

// A regional mirror of Docker Hub, first, and of two other registries; a sidecar, chained to it, knows two of them. Every
// registry has a repository of the same name, and each form of naming reaches the right one through both.
func TestRouting(t *testing.T) {
	hub, _, hubURL := plain(t)
	one, _, oneURL := plain(t)
	two, _, twoURL := plain(t)
	images := map[*mem.Registry]registrytest.Node{hub: registrytest.Image(1, 10), one: registrytest.Image(2, 10), two: registrytest.Image(3, 10)}
	for m, img := range images {
		registrytest.Push(t, m, "library/nginx", "v1", img)
	}
	settings := func(mirrors string) string {
		return fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ncache: {path: %s, size: 1GiB}\nmirrors:\n%s", t.TempDir(), mirrors)
	}
	region := "http://" + startApp(t, settings(fmt.Sprintf(`
- names: [docker.io, index.docker.io]
  source: {registry: %q}
- names: [one.example, "one.example:5000"]
  source: {registry: %q}
- names: [two.example]
  source: {registry: %q}
`, hubURL, oneURL, twoURL)), nil).registryAddr.String()
	sidecar := "http://" + startApp(t, settings(fmt.Sprintf(`
- names: [two.example]
  source: {registry: %q, ns: two.example}
- names: [docker.io]
  source: {registry: %q}
`, region, region)), nil).registryAddr.String()

	tag := "library/nginx/manifests/v1"
	for _, c := range []struct {
		name, url string
		from      *mem.Registry // nil: 404
	}{
		{"no name is the first: dockerd's registry-mirrors", region + "/v2/" + tag, hub},
		{"ns of Docker's containerd store", region + "/v2/" + tag + "?ns=docker.io", hub},
		{"prefix", region + "/v2/docker.io/" + tag, hub},
		{"ns", region + "/v2/" + tag + "?ns=one.example", one},
		{"ns with a port", region + "/v2/" + tag + "?ns=one.example:5000", one},
		{"prefix of another", region + "/v2/two.example/" + tag, two},
		{"prefix and ns", region + "/v2/two.example/" + tag + "?ns=two.example", two},
		{"unknown", region + "/v2/" + tag + "?ns=three.example", nil},
		{"chained, no name", sidecar + "/v2/" + tag, two},
		{"chained, ns", sidecar + "/v2/" + tag + "?ns=two.example", two},
		{"chained, to the region's first", sidecar + "/v2/" + tag + "?ns=docker.io", hub},
		{"chained, unknown here though known there", sidecar + "/v2/" + tag + "?ns=one.example", nil},
	} {
		res, err := http.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case err != nil || (res.StatusCode == 200) != (c.from != nil) || c.from == nil && res.StatusCode != 404:
			t.Errorf("%s: %d %v", c.name, res.StatusCode, err)
		case c.from != nil && string(body) != string(images[c.from].Body):
			t.Errorf("%s: another registry's image", c.name)
		}
	}
	// A list crosses the chain too, and its next page is asked of the same registry.
	for i := range 3 {
		registrytest.Push(t, two, "library/nginx", fmt.Sprintf("w%d", i), images[two])
	}
	res, err := http.Get(sidecar + "/v2/library/nginx/tags/list?n=2&ns=two.example")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if !strings.Contains(string(body), `["v1","w0"]`) || !strings.Contains(res.Header.Get("Link"), "ns=two.example") {
		t.Errorf("tags: %s, Link %s", body, res.Header.Get("Link"))
	}
}

// containerd 2.1 and later may fetch a layer by many open-ended ranges, each of which it leaves after one chunk: still one
// download, and a complete one.
func TestChunkedPull(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Image(1, 6<<20)
	r.seed("app", "v1", img)
	layer := img.Blobs[1]
	var got []byte
	for at := 0; at < len(layer.Body); at += 1 << 20 {
		req, err := http.NewRequestWithContext(t.Context(), "GET", r.url+"/v2/app/blobs/"+layer.Desc.Digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusPartialContent || res.ContentLength != int64(len(layer.Body)-at) {
			t.Errorf("at %d: %d, %d bytes", at, res.StatusCode, res.ContentLength)
		}
		chunk := make([]byte, min(1<<20, len(layer.Body)-at))
		if _, err := io.ReadFull(res.Body, chunk); err != nil {
			t.Fatal(err)
		}
		got = append(got, chunk...)
		res.Body.Close() // with the rest unread
	}
	if err := registry.VerifyBytes(got, layer.Desc.Digest); err != nil {
		t.Error(err)
	}
	if n := r.source.LayerBytes(); n != int64(len(layer.Body)) {
		t.Errorf("the source sent %d bytes for a layer of %d", n, len(layer.Body))
	}
}

// A mirror that starts with no upstream at all serves what it has, and 503 for the rest.
func TestStartsWithoutUpstream(t *testing.T) {
	m := mem.New()
	img := registrytest.Image(1, 1000)
	registrytest.Push(t, m, "app", "v1", img)
	up := httptest.NewServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: m, Lister: m}}}))
	settings := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ncache: {path: %s, size: 1GiB}\nmirrors: [{source: {registry: %q}}]\n", t.TempDir(), up.URL)
	pull := func(t *testing.T, want int) {
		base := "http://" + startApp(t, settings, nil).registryAddr.String()
		for path, want := range map[string]int{
			"manifests/v1": 200, "manifests/" + img.Desc.Digest.String(): 200, "blobs/" + img.Blobs[0].Desc.Digest.String(): 200,
			"blobs/" + img.Blobs[1].Desc.Digest.String(): 200, "manifests/v2": want,
		} {
			res, err := http.Get(base + "/v2/app/" + path)
			if err != nil {
				t.Fatal(err)
			}
			_, err = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != want || err != nil {
				t.Errorf("%s: %d %v, want %d", path, res.StatusCode, err, want)
			}
		}
	}
	t.Run("with", func(t *testing.T) { pull(t, 404) })
	up.Close()
	t.Run("without", func(t *testing.T) { pull(t, 503) })
}
