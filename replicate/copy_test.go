package replicate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// places is a source and a destination in memory, with their calls recorded. The destination is as strict as ECR.
type places struct {
	src, dst *mem.Registry
	from, to *registrytest.Faulty
}

func newPlaces() places {
	p := places{src: mem.New(), dst: mem.New()}
	p.dst.StrictRepos = true
	p.from, p.to = registrytest.NewFaulty(p.src), registrytest.NewFaulty(p.dst)
	return p
}

func (p places) image(repo string) replicate.Image {
	return replicate.Image{Source: p.from, Tags: p.from, Repo: repo,
		Destination: replicate.Destination{Name: "d", Writer: p.to, Reader: p.to}}
}

// has fails the test unless r holds all of n in repo.
func has(t testing.TB, r registry.Reader, repo string, n registrytest.Node) {
	t.Helper()
	for _, o := range n.Objects(repo) {
		if _, err := r.Stat(t.Context(), o); err != nil {
			t.Errorf("after the copy: %v", err)
		}
	}
}

func names(t testing.TB, r registry.Reader, repo, tag string, n registrytest.Node) {
	t.Helper()
	if d, err := r.Resolve(t.Context(), repo, tag); err != nil || !cmp.Equal(d, n.Desc) {
		t.Errorf("%s:%s names %v (%v), want %v", repo, tag, d, err, n.Desc)
	}
}

func short(n registrytest.Node) string { return n.Desc.Digest.Encoded()[:6] }

func TestCopyOrder(t *testing.T) {
	p := newPlaces()
	image := registrytest.Image(1, 100)
	registrytest.Push(t, p.src, "app", "v1", image)
	c := replicate.Copier{Parallel: 1}
	res, err := c.Tag(t.Context(), p.image("app"), "v1")
	must(t, err)
	config, layer, m := image.Blobs[0].Desc, image.Blobs[1].Desc, image.Desc.Digest
	ignoreTime := cmpopts.IgnoreFields(replicate.Result{}, "Pullable")
	if diff := cmp.Diff(replicate.Result{Digest: m, Bytes: config.Size + layer.Size, Brought: true}, res, ignoreTime); diff != "" || res.Pullable.IsZero() {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	want := []string{
		"resolve app:v1",
		"missing app 1", "create app", "missing app 1", // the repository is created when the destination lacks it
		"missing app 2",
		"put-blob blob app@" + config.Digest.String(), "put-blob blob app@" + layer.Digest.String(),
		"put-manifest app:v1@" + m.String(),
		"resolve app:v1",
	}
	if diff := cmp.Diff(registrytest.Short(want), registrytest.Short(p.to.Calls())); diff != "" {
		t.Errorf("calls of the destination (-want +got):\n%s", diff)
	}
	want = []string{"resolve app:v1", "open manifest app@" + m.String(), "open blob app@" + config.Digest.String(),
		"open blob app@" + layer.Digest.String(), "resolve app:v1", "resolve app:v1"}
	if diff := cmp.Diff(registrytest.Short(want), registrytest.Short(p.from.Calls())); diff != "" {
		t.Errorf("calls of the source (-want +got):\n%s", diff)
	}

	p.from.Forget()
	p.to.Forget()
	res, err = c.Tag(t.Context(), p.image("app"), "v1") // our own copy's echo costs two calls
	if diff := cmp.Diff(replicate.Result{Digest: m, Found: true}, res, ignoreTime); err != nil || diff != "" {
		t.Errorf("again: %v (-want +got):\n%s", err, diff)
	}
	if n := p.from.Count() + p.to.Count(); n != 2 {
		t.Errorf("again: %d calls, want 2: %q %q", n, p.from.Calls(), p.to.Calls())
	}
}

// Blobs before manifests before the index that holds them before the index above it before the tag.
func TestCopyNested(t *testing.T) {
	p := newPlaces()
	shared := registrytest.Image(1, 10)
	inner := registrytest.Index(shared, registrytest.Image(2, 20))
	root := registrytest.Index(inner, shared, registrytest.Image(3, 30))
	registrytest.Push(t, p.src, "app", "v1", root)
	var c replicate.Copier
	_, err := c.Tag(t.Context(), p.image("app"), "v1")
	must(t, err)
	has(t, p.dst, "app", root)
	names(t, p.dst, "app", "v1", root)

	var puts []string
	last := -1
	for _, call := range p.to.Calls() {
		switch {
		case strings.HasPrefix(call, "put-blob"):
			if len(puts) > 0 {
				t.Errorf("a blob after a manifest: %s", call)
			}
			last++
		case strings.HasPrefix(call, "put-manifest"):
			puts = append(puts, registrytest.Short([]string{call})[0])
		}
	}
	if last+1 != 6 {
		t.Errorf("%d blobs were sent, want 6", last+1)
	}
	if len(puts) != 5 {
		t.Fatalf("manifests sent: %q", puts)
	}
	slices.Sort(puts[:3])
	images := []string{short(shared), short(inner.Children[1]), short(root.Children[2])}
	slices.Sort(images)
	var want []string
	for _, d := range append(images, short(inner)) {
		want = append(want, "put-manifest app@"+d)
	}
	want = append(want, "put-manifest app:v1@"+short(root))
	if diff := cmp.Diff(want, puts); diff != "" {
		t.Errorf("manifests sent (-want +got):\n%s", diff)
	}
}

func TestCopySkipsWhatIsThere(t *testing.T) {
	p := newPlaces()
	old, fresh := registrytest.Image(1, 10), registrytest.Image(2, 20)
	root := registrytest.Index(old, fresh)
	registrytest.Push(t, p.src, "app", "v1", root)
	registrytest.Push(t, p.dst, "app", "", old)
	var c replicate.Copier
	res, err := c.Content(t.Context(), p.image("app"), root.Desc.Digest)
	must(t, err)
	has(t, p.dst, "app", root)
	if res.Found || p.to.Count("put-blob") != 2 || p.to.Count("put-manifest") != 2 || p.from.Count("open") != 4 {
		t.Errorf("%+v; destination %q, source %q", res, p.to.Calls(), p.from.Calls())
	}
	p.to.Forget()
	if res, err = c.Content(t.Context(), p.image("app"), root.Desc.Digest); err != nil || !res.Found || p.to.Count() != 1 {
		t.Errorf("again: %+v %v, %q", res, err, p.to.Calls())
	}
	// A second tag for what is there is one manifest.
	registrytest.Push(t, p.src, "app", "v2", root)
	p.to.Forget()
	if _, err := c.Tag(t.Context(), p.image("app"), "v2"); err != nil || p.to.Count("put-manifest") != 1 || p.to.Count("put-blob") != 0 {
		t.Errorf("second tag: %v, %q", err, p.to.Calls())
	}
	names(t, p.dst, "app", "v2", root)
}

func TestCopyRenamed(t *testing.T) {
	p := newPlaces()
	image := registrytest.Image(1, 10)
	registrytest.Push(t, p.src, "app", "v1", image)
	im := p.image("app")
	im.Destination.Repo = func(s string) string { return "team/" + s }
	var c replicate.Copier
	_, err := c.Tag(t.Context(), im, "v1")
	must(t, err)
	has(t, p.dst, "team/app", image)
	names(t, p.dst, "team/app", "v1", image)
}

// writerOnly hides that a registry can create repositories.
type writerOnly struct{ registry.Writer }

// A registry that serves manifests nobody could have pushed: what they refer to is bounded.
func TestCopyBounds(t *testing.T) {
	index := func(children ...registry.Descriptor) registrytest.Node {
		b, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: children})
		must(t, err)
		return registrytest.Node{Desc: registry.DescriptorOf(ocispec.MediaTypeImageIndex, b), Body: b}
	}
	deep := registrytest.Image(1, 10)
	for range 5 {
		deep = registrytest.Index(deep)
	}
	var many []registry.Descriptor
	for i := range 1001 {
		many = append(many, registry.DescriptorOf(ocispec.MediaTypeImageManifest, fmt.Append(nil, i)))
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: many[0]}
	for i := range 20_001 {
		m.Layers = append(m.Layers, registry.DescriptorOf("x", fmt.Append(nil, "layer", i)))
	}
	body, err := json.Marshal(m)
	must(t, err)
	odd := []byte(`{"schemaVersion":2,"mediaType":"application/json"}`)
	for name, n := range map[string]registrytest.Node{
		"depth":      deep,
		"manifests":  index(many...),
		"blobs":      {Desc: registry.DescriptorOf(ocispec.MediaTypeImageManifest, body), Body: body},
		"media type": {Desc: registry.DescriptorOf("application/json", odd), Body: odd},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlaces()
			var c replicate.Copier
			im := p.image("app")
			im.Source = serving{p.src, n}
			if name == "depth" {
				registrytest.Push(t, p.src, "app", "v1", n)
				im.Source = p.src
			}
			if _, err := c.Content(t.Context(), im, n.Desc.Digest); !errors.Is(err, registry.Invalid) {
				t.Errorf("got %v, want invalid", err)
			}
			if n := p.to.Count("put-blob", "put-manifest"); n != 0 {
				t.Errorf("%d puts", n)
			}
		})
	}
}

// serving is a Reader that has one manifest, however odd.
type serving struct {
	registry.Reader
	n registrytest.Node
}

func (s serving) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := blobReader(s.n).Open(ctx, registry.Object{Repo: "app", Kind: registry.Blob, Digest: o.Digest}, r)
	if err == nil {
		c.Descriptor = s.n.Desc
	}
	return c, err
}

func blobReader(n registrytest.Node) registry.Reader {
	r := mem.New()
	if err := r.PutBlob(context.Background(), "app", n.Desc, strings.NewReader(string(n.Body))); err != nil {
		panic(err) // unreachable: the descriptor is the body's
	}
	return r
}

func TestCopyLeavesForeignLayers(t *testing.T) {
	p := newPlaces()
	config := registrytest.NewBlob(ocispec.MediaTypeImageConfig, []byte(`{}`))
	foreign := registry.DescriptorOf("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("windows"))
	foreign.URLs = []string{"https://example.com/windows"}
	body, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: config.Desc, Layers: []registry.Descriptor{foreign}})
	must(t, err)
	n := registrytest.Node{Desc: registry.DescriptorOf(ocispec.MediaTypeImageManifest, body), Body: body, Blobs: []registrytest.Blob{config}}
	registrytest.Push(t, p.src, "app", "v1", n)
	var c replicate.Copier
	_, err = c.Tag(t.Context(), p.image("app"), "v1")
	must(t, err)
	names(t, p.dst, "app", "v1", n)
	if got := p.to.Count("put-blob"); got != 1 {
		t.Errorf("%d blobs were sent, want the config alone", got)
	}
}

// Two images with a common base, copied at once: the base is sent once, and if its sender fails the other one sends it.
func TestCopyShares(t *testing.T) {
	for _, failing := range []bool{false, true} {
		t.Run(fmt.Sprintf("failing=%v", failing), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlaces()
				base := registrytest.Image(1, 1000)
				a, b := registrytest.Index(base, registrytest.Image(2, 10)), registrytest.Index(base, registrytest.Image(3, 10))
				registrytest.Push(t, p.src, "app", "a", a)
				registrytest.Push(t, p.src, "app", "b", b)
				var once sync.Once
				p.to.Before = func(c registrytest.Call) (err error) {
					if c.Op == "put-blob" || c.Op == "put-manifest" {
						time.Sleep(time.Minute)
					}
					if c.Object.Digest == base.Blobs[1].Desc.Digest && failing {
						once.Do(func() { err = registry.Errorf(registry.Unavailable, "fault") })
					}
					return err
				}
				var c replicate.Copier
				errs := make(chan error, 2)
				for _, tag := range []string{"a", "b"} {
					go func() { _, err := c.Tag(t.Context(), p.image("app"), tag); errs <- err }()
				}
				one, two := <-errs, <-errs
				if (one != nil || two != nil) != failing || one != nil && two != nil {
					t.Errorf("%v, %v", one, two)
				}
				if failing { // the one that failed tries again
					for _, tag := range []string{"a", "b"} {
						_, err := c.Tag(t.Context(), p.image("app"), tag)
						must(t, err)
					}
				}
				names(t, p.dst, "app", "a", a)
				names(t, p.dst, "app", "b", b)
				seen := make(map[string]int)
				for _, call := range p.to.Calls() {
					if strings.HasPrefix(call, "put-") {
						seen[call]++
					}
				}
				for call, n := range seen {
					if want := 1; n != want && !(failing && n == 2) {
						t.Errorf("%d times: %s", n, call)
					}
				}
				if n := seen["put-manifest app@"+base.Desc.Digest.String()]; n != 1 {
					t.Errorf("the base's manifest was sent %d times", n)
				}
			})
		})
	}
}
