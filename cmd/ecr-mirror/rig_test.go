package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// rig is a whole mirror between two emulated regions of two accounts.
type rig struct {
	t                   testing.TB
	emu                 *ecrtest.Emulator
	source, destination *ecrtest.Registry
	push                *remote.Registry // the source, as docker push sees it
	arrives             *remote.Registry // the destination, as docker pull sees it
	mirror              *remote.Registry
	url                 string
	yaml                string // the configuration
	aws                 *aws.Config
	app                 *app
}

// newRig starts everything. extra is more YAML of the mirror under test, or further mirrors.
func newRig(t testing.TB, extra string) *rig {
	t.Helper()
	return newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
`+extra)
}

// newRigOf starts everything with the mirrors given, in YAML, and the registries, as ACCOUNT/REGION, that it takes beside
// the rig's own.
func newRigOf(t testing.TB, mirrors string, registries ...string) *rig {
	t.Helper()
	return newRigWith(t, emulatorOptions{registries: registries}, mirrors)
}

// newRigWith is newRigOf with more options of the emulator.
func newRigWith(t testing.TB, o emulatorOptions, mirrors string) *rig {
	t.Helper()
	o.registries = append([]string{demoSourceAccount + "/" + demoSourceRegion, demoDestinationAccount + "/" + demoDestinationRegion}, o.registries...)
	o.queues = []string{demoSourceAccount + "/" + demoSourceRegion + "/" + demoQueue}
	emu, at, err := startEmulator(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { emu.Close() })
	d := &demo{out: io.Discard, emu: emu}
	if err := d.connect(at); err != nil {
		t.Fatal(err)
	}
	mirrors = strings.NewReplacer("$source", demoSourceHost, "$destination", demoDestinationHost, "$endpoint", at.Endpoint, "$front", "http://"+emu.RegistryHost(demoDestinationAccount, demoDestinationRegion),
		"$queue", at.Queues[0]["url"]).Replace(mirrors)
	yaml := fmt.Sprintf(`
listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {path: %s, size: 1GiB}
mirrors:
%s`, t.TempDir(), mirrors)
	base := aws.Config{Region: demoSourceRegion, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return emu.Credentials(demoSourceAccount), nil
	})}
	a := startApp(t, yaml, &base)
	r := &rig{t: t, emu: emu, source: emu.Registry(demoSourceAccount, demoSourceRegion), push: d.source, arrives: d.destination,
		destination: emu.Registry(demoDestinationAccount, demoDestinationRegion), url: "http://" + a.registryAddr.String(), app: a, yaml: yaml, aws: &base}
	if r.mirror, err = remote.New(remote.Options{Registry: r.url}); err != nil {
		t.Fatal(err)
	}
	return r
}

// startApp runs what yaml configures until the test ends.
func startApp(t testing.TB, yaml string, base *aws.Config) *app {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(yaml), os.LookupEnv)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	if _, ok := t.(*testing.B); ok { // which would print all of it
		log = slog.New(slog.DiscardHandler)
	}
	a, err := newApp(t.Context(), cfg, base, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return a
}

// seed pushes an image to the source; no event tells of it.
func (r *rig) seed(repo, tag string, n registrytest.Node) {
	r.t.Helper()
	r.emu.OnEvent(func(ecrtest.Event) []ecrtest.Delivery { return nil })
	defer r.emu.OnEvent(nil)
	if err := r.source.CreateRepository(repo); err != nil && !strings.Contains(err.Error(), "already exists") {
		r.t.Fatal(err)
	}
	registrytest.Push(r.t, r.push, repo, tag, n)
}

// pulled reads repo:tag and everything under it through the mirror.
func (r *rig) pulled(repo, tag string) error {
	d, err := r.mirror.Resolve(r.t.Context(), repo, tag)
	if err != nil {
		return err
	}
	return r.pulledManifest(repo, d)
}

func (r *rig) pulledManifest(repo string, d registry.Descriptor) error {
	body, err := r.read(registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}, d.Size)
	if err != nil {
		return err
	}
	links, err := registry.ParseManifest(d.MediaType, body)
	if err != nil {
		return err
	}
	for _, b := range links.Blobs {
		if _, err := r.read(registry.Object{Repo: repo, Kind: registry.Blob, Digest: b.Digest}, b.Size); err != nil {
			return err
		}
	}
	for _, m := range links.Manifests {
		if err := r.pulledManifest(repo, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) read(o registry.Object, size int64) ([]byte, error) {
	c, err := r.mirror.Open(r.t.Context(), o, registry.Whole)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return io.ReadAll(registry.Verify(c, o.Digest, size))
}

// status returns what the mirror answers to a GET.
func (r *rig) status(path string) int {
	r.t.Helper()
	res, err := http.Get(r.url + path)
	if err != nil {
		r.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// eventually waits for what the workers do in the background, and fails the test when it does not come about.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: did not come about", what)
		}
	}
}

// replicated reports whether the destination's tag names n.
func (r *rig) replicated(repo, tag string, n registrytest.Node) bool {
	d, err := r.arrives.Resolve(r.t.Context(), repo, tag)
	return err == nil && d.Digest == n.Desc.Digest
}

// metrics returns what the admin port says at /metrics.
func (r *rig) metrics() string {
	r.t.Helper()
	res, err := http.Get("http://" + r.app.adminAddr.String() + "/metrics")
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}
