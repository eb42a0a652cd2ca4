package e2e

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// kill -9 in the middle of a fill: the restarted mirror serves the right bytes and goes on where it was.
func TestKillDuringFill(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry")
	n := image(t, "amd64", "filled", 40<<20)
	layer := n.Blobs[len(n.Blobs)-1]
	registry := dockerRegistry(t)
	push(t, registry, "team/app", "1", n)
	half := layer.Desc.Size / 2
	source := newGate(t, registry, &gate{holdFrom: half})
	m := startMirror(t, nil, plain(registryName, source.addr, ""))
	if _, err := get("http://" + m.addr + "/v2/team/app/manifests/1"); err != nil {
		t.Fatal(err)
	}
	res, err := open(blobURL(m.addr, "team/app", layer.Desc.Digest))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }() // cut by the kill
	if _, err := io.CopyN(io.Discard, res.Body, half-1<<20); err != nil {
		t.Fatalf("the first part of a growing layer: %v", err)
	}
	<-source.held
	eventually(t, "a part of the layer is durable", func() bool { return durable(t, m) })
	m.kill()
	if _, err := io.Copy(io.Discard, res.Body); err == nil {
		t.Error("the cut body looked complete to its reader")
	}

	source.open()
	m.start(t)
	if err := fetch(t, m.addr, "team/app", layer); err != nil {
		t.Fatal(err)
	}
	// What was not yet durable is read again, never all.
	if sent := source.sent.Load(); sent >= layer.Desc.Size+half {
		t.Errorf("the source sent %d bytes of a layer of %d bytes: the first half was read again", sent, layer.Desc.Size)
	}
}

// durable reports whether the map of a partial object marks a segment as being on the disk: see storage/fillfile.go.
func durable(t *testing.T, m *mirror) bool {
	t.Helper()
	maps, err := filepath.Glob(filepath.Join(filepath.Dir(m.config), "cache", "fills", "*.map"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range maps {
		const header = 256
		if b, err := os.ReadFile(name); err == nil && len(b) > header && len(bytes.Trim(b[header:], "\x00")) > 0 {
			return true
		}
	}
	return false
}

// kill -9 while the copy to the destination is in flight: after the restart the job goes on, without a new pull or event.
func TestKillDuringReplication(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "crane")
	source, registry := dockerRegistry(t), dockerRegistry(t)
	multi := multiArch(t, "survivor", 4<<20)
	push(t, source, "team/app", "1", multi)
	destination := newGate(t, registry, &gate{holdUpload: true})
	m := startMirror(t, nil, plain(registryName, source, destination.addr))
	run(t, nil, "crane", "validate", "--remote", m.addr+"/team/app:1")
	<-destination.held
	m.kill()
	if tagged(registry, "team/app", "1") {
		t.Fatal("the destination has the tag before the upload went through")
	}

	destination.open()
	m.start(t)
	eventually(t, "the destination has the tag", func() bool { return tagged(registry, "team/app", "1") })
	run(t, nil, "crane", "validate", "--remote", registry+"/team/app:1")
	if got := run(t, nil, "crane", "manifest", registry+"/team/app:1"); got != string(multi.Body) {
		t.Errorf("the destination's manifest: %s, want %s", got, multi.Body)
	}
}

// SIGTERM in the middle of a pull: the pull ends well, and then the process.
func TestStopDrains(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry")
	n := image(t, "amd64", "drained", 8<<20)
	layer := n.Blobs[len(n.Blobs)-1]
	registry := dockerRegistry(t)
	push(t, registry, "team/app", "1", n)
	source := newGate(t, registry, &gate{holdFrom: layer.Desc.Size / 2})
	m := startMirror(t, nil, plain(registryName, source.addr, ""))
	if _, err := get("http://" + m.addr + "/v2/team/app/manifests/1"); err != nil {
		t.Fatal(err)
	}
	pulled := make(chan error, 1)
	go func() { pulled <- fetch(t, m.addr, "team/app", layer) }()
	<-source.held
	stopped := make(chan struct{})
	go func() { m.stop(t); close(stopped) }()
	eventually(t, "the listener closed", func() bool { return status("http://"+m.addr+"/v2/") == 0 })
	source.open()
	if err := <-pulled; err != nil {
		t.Errorf("a pull during the shutdown: %v", err)
	}
	<-stopped
	if code := m.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}
