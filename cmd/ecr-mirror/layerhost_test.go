package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// A client's one pull survives passing trouble at the layer host, before the first byte and in the middle of the blob. One
// presigned URL serves all ranges, and is asked for again only when it is refused.
func TestLayerHostTrouble(t *testing.T) {
	const size = 4 << 20
	for name, test := range map[string]struct {
		fault ecrtest.Fault
		calls int // of the layer host in a row that meet it
		urls  int
		lost  bool // bytes that were on their way
	}{
		"none":                 {urls: 1},
		"expired":              {fault: ecrtest.Fault{Status: 403, Message: "Request has expired"}, calls: 1, urls: 2},
		"503 SlowDown":         {fault: ecrtest.Fault{Status: 503}, calls: 3, urls: 1},
		"429":                  {fault: ecrtest.Fault{Status: 429}, calls: 3, urls: 1},
		"429 come back in 1 s": {fault: ecrtest.Fault{Status: 429, Header: http.Header{"Retry-After": {"1"}}}, calls: 1, urls: 1},
		"reset":                {fault: ecrtest.Fault{Damage: ecrtest.Reset, At: 500_000}, calls: 2, urls: 1, lost: true},
		"hang up":              {fault: ecrtest.Fault{HangUp: true}, calls: 2, urls: 1},
	} {
		for at, first := range map[string]int{"at first": 0, "in the middle": 2} {
			t.Run(name+" "+at, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, "")
				img := registrytest.Image(1, size)
				r.seed("app", "v1", img)
				layer := img.Blobs[1]
				r.emu.ResetCalls()
				r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
					if c.Op == "GET layer" && c.Nth >= first && c.Nth < first+test.calls {
						return test.fault
					}
					return ecrtest.Fault{}
				})
				res, err := http.Get(r.url + "/v2/app/blobs/" + layer.Desc.Digest.String())
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				if err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(body, layer.Body) {
					t.Errorf("got %s with %d bytes, %v", res.Status, len(body), err)
				}
				urls := 0
				for _, c := range r.emu.Calls() {
					if strings.Contains(c, "GetDownloadUrlForLayer") && strings.HasPrefix(c, demoSourceRegion+" ") {
						urls++
					}
				}
				if urls != test.urls {
					t.Errorf("%d URLs were asked for, want %d", urls, test.urls)
				}
				var asked int64
				for _, read := range r.source.LayerReads(layer.Desc.Digest) {
					asked += read.Length
				}
				if asked < size || asked > size && !test.lost {
					t.Errorf("the source was asked for %d bytes of %d", asked, size)
				}
			})
		}
	}
}

// A look at a few bytes brings a piece of the blob, or all of it where cache.fillOnProbe says so.
func TestProbe(t *testing.T) {
	const size = 4 << 20
	r := newRig(t, "")
	img := registrytest.Image(1, size)
	r.seed("app", "v1", img)
	layer := img.Blobs[1]
	asked := func() (n int64) {
		for _, read := range r.source.LayerReads(layer.Desc.Digest) {
			n += read.Length
		}
		return n
	}
	probe := func(base string) {
		req, err := http.NewRequest(http.MethodGet, base+"/v2/app/blobs/"+layer.Desc.Digest.String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Range", "bytes=5-9")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if b, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusPartialContent || !bytes.Equal(b, layer.Body[5:10]) {
			t.Errorf("probe: %s, %d bytes, %v", res.Status, len(b), err)
		}
	}
	probe(r.url)
	if n := asked(); n != 1<<20 {
		t.Errorf("a probe asked for %d bytes, want one segment of 1 MiB", n)
	}
	cache := fmt.Sprintf("cache: {path: %s, size: 1GiB, fillOnProbe: true}", t.TempDir())
	a := startApp(t, regexp.MustCompile(`cache: \{.*\}`).ReplaceAllLiteralString(r.yaml, cache), r.aws)
	probe("http://" + a.registryAddr.String())
	r.eventually("the rest of the blob", func() bool { return asked() == size+1<<20 })
}
