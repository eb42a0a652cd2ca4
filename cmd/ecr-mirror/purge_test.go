package main

import (
	"net/http"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What an outage would serve is gone once it is purged; without the purge it is served.
func TestPurge(t *testing.T) {
	r := newRig(t, "  names: [one.example.com]\n  tags: {ttl: 0s}\n  replication: {onMiss: false}\n")
	img := registrytest.Image(1, 1000)
	r.seed("app", "v1", img)
	r.seed("other", "v1", img)
	for _, repo := range []string{"app", "other"} {
		if err := r.pulled(repo, "v1"); err != nil {
			t.Fatal(err)
		}
	}
	r.source.SetUnreachable(true)
	r.destination.SetUnreachable(true)
	manifest := "/v2/app/manifests/" + img.Desc.Digest.String()
	want := func(path string, status int) {
		t.Helper()
		if got := r.status(path); got != status {
			t.Errorf("%s: %d, want %d", path, got, status)
		}
	}
	purge := func(query string, status int) {
		t.Helper()
		res, err := http.Post("http://"+r.app.adminAddr.String()+"/purge?"+query, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("purge %s: %d, want %d", query, res.StatusCode, status)
		}
	}
	r.eventually("a pull in the outage", func() bool { // a blob is local a little after its last byte
		return r.status("/v2/app/manifests/v1") == 200 && r.status("/v2/other/manifests/v1") == 200
	})
	purge("registry=other.example.com&repository=app", 404)
	purge("repository=", 400)
	purge("repository=../app", 400)
	want("/v2/app/manifests/v1", 200)
	purge("registry=One.Example.Com&repository=app&tag=v1", 204)
	want("/v2/app/manifests/v1", 503)
	want(manifest, 200)
	purge("repository=app", 204)
	want(manifest, 503)
	want("/v2/other/manifests/v1", 200)
}
