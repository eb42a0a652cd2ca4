package ecr_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

const (
	account = "111122223333"
	region  = "us-west-2"
)

func start(t *testing.T, o ecrtest.Options) (*ecrtest.Emulator, *ecr.Registry) {
	t.Helper()
	emu, err := ecrtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := emu.Start(ecrtest.Listen{}); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	cfg := emu.Config(account, region)
	cfg.HTTPClient = &http.Client{Transport: tr}
	r, err := ecr.New(t.Context(), ecr.Options{Host: emu.Registry(account, region).Host(), Endpoint: emu.ControlURL(), AWS: &cfg, Rates: map[string]float64{"PutImage": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); tr.CloseIdleConnections(); emu.Close() })
	return emu, r
}

// The behaviour suite. Layers are given out before a manifest refers to them: the suite reads what it put.
func TestSuite(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.Subject {
		_, r := start(t, ecrtest.Options{PartSize: 100_000, Quirks: ecrtest.Quirks{ServeUnreferenced: true}})
		return registrytest.Subject{Reader: r, Writer: r, Lister: r, StrictRepos: true}
	})
}

// A pull makes exactly these calls.
func TestPullCalls(t *testing.T) {
	emu, r := start(t, ecrtest.Options{})
	img := registrytest.Image(1, 5000)
	ix := registrytest.Index(img)
	registrytest.Push(t, r, "app", "v1", ix)
	emu.ResetCalls()
	d, err := r.Resolve(t.Context(), "app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	read := func(o registry.Object, rg registry.Range) []byte {
		t.Helper()
		c, err := r.Open(t.Context(), o, rg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	read(registry.Object{Repo: "app", Kind: registry.Manifest, Digest: d.Digest}, registry.Whole)
	read(registry.Object{Repo: "app", Kind: registry.Manifest, Digest: img.Desc.Digest}, registry.Whole)
	layer := registry.Object{Repo: "app", Kind: registry.Blob, Digest: img.Blobs[1].Desc.Digest}
	got := slices.Concat(read(layer, registry.Range{Offset: 0, Length: 2000}), read(layer, registry.Range{Offset: 2000, Length: -1}))
	if !bytes.Equal(got, img.Blobs[1].Body) {
		t.Error("the layer has other bytes")
	}
	want := []string{"BatchGetImage app:v1", "BatchGetImage app@" + img.Desc.Digest.String(),
		"GetDownloadUrlForLayer app@" + layer.Digest.String(), "GET layer app@" + layer.Digest.String(), "GET layer app@" + layer.Digest.String()}
	var calls []string
	for _, c := range emu.Calls() {
		calls = append(calls, strings.TrimPrefix(c, region+" "+account+" "))
	}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// Every call of a push fails once: without effect, and after it. The pusher pushes again, and all is there.
func TestPushThroughFaults(t *testing.T) {
	for _, op := range []string{"InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "PutImage", "CreateRepository", "BatchCheckLayerAvailability"} {
		for _, after := range []bool{false, true} {
			t.Run(op+map[bool]string{true: " after its effect"}[after], func(t *testing.T) {
				emu, r := start(t, ecrtest.Options{PartSize: 2000})
				var failed atomic.Bool
				emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
					if c.Op == op && failed.CompareAndSwap(false, true) {
						return ecrtest.Fault{HangUp: true, After: after}
					}
					return ecrtest.Fault{}
				})
				img := registrytest.Image(1, 3500)
				try := func() error {
					if err := r.CreateRepository(t.Context(), "app"); err != nil {
						return err
					}
					missing, err := r.Missing(t.Context(), "app", img.Objects("app"))
					if err != nil {
						return err
					}
					for _, b := range img.Blobs {
						if !slices.ContainsFunc(missing, func(o registry.Object) bool { return o.Digest == b.Desc.Digest }) {
							continue
						}
						if err := r.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
							return err
						}
					}
					return r.PutManifest(t.Context(), "app", "v1", img.Desc, img.Body)
				}
				err := try()
				if err != nil {
					if registry.ClassOf(err) != registry.Unavailable {
						t.Errorf("first: %v of class %v", err, registry.ClassOf(err))
					}
					err = try()
				}
				if err != nil || !failed.Load() {
					t.Fatalf("second: %v; fault used: %v", err, failed.Load())
				}
				if d, err := r.Resolve(t.Context(), "app", "v1"); err != nil || d.Digest != img.Desc.Digest {
					t.Errorf("got %v, %v", d, err)
				}
			})
		}
	}
}

func TestExpiredURLInUse(t *testing.T) {
	now := time.Now()
	clock := func() time.Time { return now }
	emu, r := start(t, ecrtest.Options{Clock: clock})
	img := registrytest.Image(1, 3000)
	registrytest.Push(t, r, "app", "v1", img)
	layer := registry.Object{Repo: "app", Kind: registry.Blob, Digest: img.Blobs[1].Desc.Digest}
	for range 2 {
		c, err := r.Open(t.Context(), layer, registry.Range{Offset: 1000, Length: 1000})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if c.Close(); err != nil || !bytes.Equal(b, img.Blobs[1].Body[1000:2000]) {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		now = now.Add(2 * time.Hour) // at the registry; the cached URL still looks good here
	}
	n := 0
	for _, c := range emu.Calls() {
		if strings.Contains(c, "GetDownloadUrlForLayer") {
			n++
		}
	}
	if n != 2 {
		t.Errorf("%d URLs asked for, want 2", n)
	}
}

func TestImmutableTag(t *testing.T) {
	emu, _ := start(t, ecrtest.Options{})
	cfg := emu.Config(account, region)
	tr := &http.Transport{}
	cfg.HTTPClient = &http.Client{Transport: tr}
	defer tr.CloseIdleConnections()
	r, err := ecr.New(t.Context(), ecr.Options{Host: emu.Registry(account, region).Host(), Endpoint: emu.ControlURL(), AWS: &cfg,
		Settings: ecr.RepositorySettings{TagMutability: "IMMUTABLE"}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	a, b := registrytest.Image(1, 10), registrytest.Image(2, 10)
	registrytest.Push(t, r, "app", "v1", a)
	registrytest.Push(t, r, "app", "v1", a)
	registrytest.Push(t, r, "app", "v2", b)
	if err := r.PutManifest(t.Context(), "app", "v1", b.Desc, b.Body); registry.ClassOf(err) != registry.Conflict {
		t.Errorf("got %v of class %v", err, registry.ClassOf(err))
	}
}

func TestCatalogAndDelete(t *testing.T) {
	_, r := start(t, ecrtest.Options{})
	a, b := registrytest.Image(1, 10), registrytest.Image(2, 10)
	registrytest.Push(t, r, "one", "v1", a)
	registrytest.Push(t, r, "one", "v2", a)
	registrytest.Push(t, r, "two", "", b)
	var repos []string
	for name, err := range r.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, name)
	}
	slices.Sort(repos)
	if !slices.Equal(repos, []string{"one", "two"}) {
		t.Errorf("repositories %v", repos)
	}
	images := func(repo string, since time.Time) (all []registry.Image) {
		for img, err := range r.Images(t.Context(), repo, since) {
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(img.Tags)
			all = append(all, img)
		}
		return all
	}
	if got := images("one", time.Time{}); len(got) != 1 || got[0].Descriptor.Digest != a.Desc.Digest || !slices.Equal(got[0].Tags, []string{"v1", "v2"}) || got[0].PushedAt.IsZero() {
		t.Errorf("images %+v", got)
	}
	if got, err := r.Describe(t.Context(), "one", a.Desc.Digest); err != nil || !got.PushedAt.Equal(images("one", time.Time{})[0].PushedAt) {
		t.Errorf("described: %+v, %v", got, err)
	}
	if _, err := r.Describe(t.Context(), "one", b.Desc.Digest); registry.ClassOf(err) != registry.NotFound {
		t.Errorf("describe what is not there: %v", err)
	}
	if got := images("two", time.Now().Add(time.Hour)); len(got) != 0 {
		t.Errorf("images of the future: %+v", got)
	}
	if err := r.DeleteManifest(t.Context(), "one", a.Desc.Digest); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteManifest(t.Context(), "one", a.Desc.Digest); err != nil {
		t.Errorf("again: %v", err)
	}
	_, err := r.Open(t.Context(), registry.Object{Repo: "one", Kind: registry.Manifest, Digest: a.Desc.Digest}, registry.Whole)
	if registry.ClassOf(err) != registry.NotFound {
		t.Errorf("open after delete: %v", err)
	}
}

// With the permissions of AmazonEC2ContainerRegistryPullOnly an image can be pulled, and its blobs looked at.
func TestPullOnly(t *testing.T) {
	emu, admin := start(t, ecrtest.Options{})
	img := registrytest.Image(1, 3000)
	registrytest.Push(t, admin, "app", "v1", img)
	puller := emu.Role(account, "puller", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	r, err := ecr.New(t.Context(), ecr.Options{Host: admin.String(), Endpoint: emu.ControlURL(), AWS: &aws.Config{
		HTTPClient: &http.Client{Transport: tr}, Credentials: credentials.StaticCredentialsProvider{Value: puller}}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Resolve(t.Context(), "app", "v1"); err != nil {
		t.Error(err)
	}
	for _, o := range img.Objects("app") {
		c, err := r.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || int64(len(b)) != c.Descriptor.Size {
			t.Errorf("%v: %d bytes, %v", o, len(b), err)
		}
		c.Close()
	}
	for _, b := range img.Blobs {
		d, err := r.Stat(t.Context(), registry.Object{Repo: "app", Digest: b.Desc.Digest})
		if err != nil || d.Size != b.Desc.Size || d.Digest != b.Desc.Digest {
			t.Errorf("stat of a blob: %+v, %v", d, err)
		}
	}
	if _, err := r.Stat(t.Context(), registry.Object{Repo: "app", Digest: img.Desc.Digest}); registry.ClassOf(err) != registry.NotFound {
		t.Errorf("stat of a blob that is not there: %v", err)
	}
	if err := r.PutManifest(t.Context(), "app", "v2", img.Desc, img.Body); registry.ClassOf(err) != registry.Denied {
		t.Errorf("put: %v", err)
	}
}

// Keeps sees archived images, which no pull does; Expires is about the lifecycle policy. What cannot be known is an error.
func TestKeeper(t *testing.T) {
	emu, r := start(t, ecrtest.Options{})
	api := awsecr.NewFromConfig(emu.Config(account, region))
	a, never := registrytest.Image(1, 10), registrytest.Image(2, 10).Desc.Digest
	registrytest.Push(t, r, "app", "v1", a)
	keeps := func(d digest.Digest, want bool) {
		t.Helper()
		if got, err := r.Keeps(t.Context(), "app", d); err != nil || got != want {
			t.Errorf("keeps %s: %v, %v, want %v", d, got, err, want)
		}
	}
	expires := func(want bool) {
		t.Helper()
		if got, err := r.Expires(t.Context(), "app"); err != nil || got != want {
			t.Errorf("expires: %v, %v, want %v", got, err, want)
		}
	}
	keeps(a.Desc.Digest, true)
	keeps(never, false)
	expires(false)
	if _, err := api.UpdateImageStorageClass(t.Context(), &awsecr.UpdateImageStorageClassInput{RepositoryName: aws.String("app"),
		ImageId: &types.ImageIdentifier{ImageTag: aws.String("v1")}, TargetStorageClass: types.TargetStorageClassArchive}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Describe(t.Context(), "app", a.Desc.Digest); registry.ClassOf(err) != registry.NotFound {
		t.Errorf("describe an archived image: %v", err)
	}
	keeps(a.Desc.Digest, true)
	if _, err := api.PutLifecyclePolicy(t.Context(), &awsecr.PutLifecyclePolicyInput{RepositoryName: aws.String("app"), LifecyclePolicyText: aws.String(`{"rules": [{"rulePriority": 1,
		"selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 100}, "action": {"type": "expire"}}]}`)}); err != nil {
		t.Fatal(err)
	}
	expires(true)
	if err := r.DeleteManifest(t.Context(), "app", a.Desc.Digest); err != nil {
		t.Fatal(err)
	}
	keeps(a.Desc.Digest, false)

	if _, err := r.Keeps(t.Context(), "nowhere", never); registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("keeps, in an unknown repository: %v", err)
	}
	if _, err := r.Expires(t.Context(), "nowhere"); registry.CodeOf(err) != registry.CodeNameUnknown {
		t.Errorf("expires, of an unknown repository: %v", err)
	}
	if _, err := r.Keeps(t.Context(), "app", "x"); registry.ClassOf(err) != registry.Invalid {
		t.Errorf("keeps no digest: %v", err)
	}
	emu.Registry(account, region).SetDown(true)
	if _, err := r.Keeps(t.Context(), "app", never); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("keeps, during an outage: %v", err)
	}
	if _, err := r.Expires(t.Context(), "app"); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("expires, during an outage: %v", err)
	}
}

// A listing tells what an image is about.
func TestImagesTellTheirSubject(t *testing.T) {
	_, r := start(t, ecrtest.Options{})
	image := registrytest.Image(1, 100)
	about := registrytest.Referrer(image.Desc, "application/signature", []byte("signature"))
	registrytest.Push(t, r, "app", "v1", image)
	registrytest.Push(t, r, "app", "", about)
	got := make(map[digest.Digest]digest.Digest)
	for img, err := range r.Images(t.Context(), "app", time.Time{}) {
		if err != nil {
			t.Fatal(err)
		}
		got[img.Descriptor.Digest] = img.Subject
	}
	if diff := cmp.Diff(map[digest.Digest]digest.Digest{image.Desc.Digest: "", about.Desc.Digest: image.Desc.Digest}, got); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}
