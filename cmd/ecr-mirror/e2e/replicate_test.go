package e2e

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Debian's docker-registry on both ends: a pull through the mirror leaves the image in the destination, all platforms.
func TestPullReplicates(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "crane", "skopeo")
	source, destination := dockerRegistry(t), dockerRegistry(t)
	multi := multiArch(t, "replicated", 2<<20)
	push(t, source, "team/app", "1", multi)
	m := startMirror(t, nil, plain(registryName, source, destination))
	run(t, nil, "crane", "export", "--platform=linux/amd64", m.addr+"/team/app:1", "/dev/null")

	eventually(t, "the destination has the tag", func() bool { return tagged(destination, "team/app", "1") })
	run(t, nil, "crane", "validate", "--remote", destination+"/team/app:1")
	got := run(t, nil, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+destination+"/team/app:1")
	if got != string(multi.Body) {
		t.Errorf("the destination's manifest: %s, want %s", got, multi.Body)
	}
}

// The source is gone: what the destination or the disk has is served, what only the source had is not.
func TestSourceOutage(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "crane")
	source, destination := newGate(t, dockerRegistry(t), &gate{}), dockerRegistry(t)
	push(t, source.addr, "team/app", "1", multiArch(t, "kept", 1<<20))
	push(t, destination, "team/other", "1", multiArch(t, "elsewhere", 0))
	m := startMirror(t, nil, plain(registryName, source.addr, destination))
	run(t, nil, "crane", "validate", "--remote", m.addr+"/team/app:1")
	eventually(t, "the destination has the tag", func() bool { return tagged(destination, "team/app", "1") })
	m.stop(t)

	down := freeAddr(t)
	offline := startMirror(t, nil, plain(registryName, down, destination))
	run(t, nil, "crane", "validate", "--remote", offline.addr+"/team/app:1")
	run(t, nil, "crane", "validate", "--remote", offline.addr+"/team/other:1")
	if out, err := try(t, nil, "crane", "manifest", offline.addr+"/team/none:1"); err == nil {
		t.Errorf("a manifest that nobody has: %s", out)
	}
}

// One upstream read for many readers, some of them late.
func TestConcurrentPullsReadOnce(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry")
	n := image(t, "amd64", "shared", 8<<20)
	layer := n.Blobs[len(n.Blobs)-1]
	registry := dockerRegistry(t)
	push(t, registry, "team/app", "1", n)
	source := newGate(t, registry, &gate{holdFrom: layer.Desc.Size / 2})
	m := startMirror(t, nil, plain(registryName, source.addr, ""))
	if _, err := get("http://" + m.addr + "/v2/team/app/manifests/1"); err != nil {
		t.Fatal(err)
	}
	const readers = 12
	results := make(chan error, readers)
	for i := range readers {
		go func() {
			if i >= readers/2 {
				<-source.held // late: half of the layer is there
			}
			results <- fetch(t, m.addr, "team/app", layer)
		}()
	}
	<-source.held
	source.open()
	for range readers {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if sent := source.sent.Load(); sent != layer.Desc.Size {
		t.Errorf("the source sent %d bytes of a layer of %d bytes", sent, layer.Desc.Size)
	}
}

// tagged reports whether the registry at addr has the tag.
func tagged(addr, repo, tag string) bool {
	return status("http://"+addr+"/v2/"+repo+"/manifests/"+tag) == 200
}

// fetch reads a blob and compares every byte.
func fetch(t *testing.T, addr, repo string, b registrytest.Blob) error {
	t.Helper()
	body, err := get(blobURL(addr, repo, b.Desc.Digest))
	if err == nil && !bytes.Equal(body, b.Body) {
		t.Errorf("blob %s: wrong bytes (%d of %d)", b.Desc.Digest, len(body), b.Desc.Size)
	}
	return err
}

func blobURL(addr, repo string, d digest.Digest) string {
	return strings.Join([]string{"http:/", addr, "v2", repo, "blobs", d.String()}, "/")
}
