package ecrtest_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// both planes of a registry, as the mirror's own clients see them.
type planes interface {
	registry.Reader
	registry.Writer
	registry.Lister
}

func clients(t *testing.T, emu *ecrtest.Emulator) map[string]planes {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	cfg := emu.Config(account, region)
	cfg.HTTPClient = &http.Client{Transport: tr}
	control, err := ecr.New(t.Context(), ecr.Options{Host: emu.Registry(account, region).Host(), Endpoint: emu.ControlURL(), AWS: &cfg, Rates: map[string]float64{"PutImage": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(emu.Token(account, region)), 0o600); err != nil {
		t.Fatal(err)
	}
	v2, err := remote.New(remote.Options{Registry: "http://" + emu.RegistryHost(account, region), Username: "AWS", PasswordFile: password})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]planes{"control API": control, "v2 plane": v2}
}

// Where reports about ECR disagree, both answers are a switch, and the mirror's clients push, list and pull whatever it says.
func TestClientsUnderEveryQuirk(t *testing.T) {
	variants := map[string]ecrtest.Quirks{"none": {}}
	typ := reflect.TypeFor[ecrtest.Quirks]()
	for i := range typ.NumField() {
		var q ecrtest.Quirks
		switch f := reflect.ValueOf(&q).Elem().Field(i); f.Kind() {
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int:
			f.SetInt(1)
		}
		variants[typ.Field(i).Name] = q
	}
	for name, quirks := range variants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			emu := start(t, ecrtest.Options{Quirks: quirks, PartSize: 1000})
			ix := registrytest.Index(registrytest.Image(1, 2500), registrytest.Image(2, 10))
			sig := registrytest.Referrer(ix.Desc, "application/x.sig", []byte("sig"))
			for plane, c := range clients(t, emu) {
				repo := map[string]string{"control API": "control", "v2 plane": "v2"}[plane]
				if err := emu.Registry(account, region).CreateRepository(repo); err != nil {
					t.Fatal(err)
				}
				registrytest.Push(t, c, repo, "v1", ix)
				registrytest.Push(t, c, repo, "", sig)
				registrytest.Push(t, c, repo, "v1", ix) // again changes nothing
				if err := readBack(t, c, repo, ix, sig); err != nil {
					t.Errorf("%s: %v", plane, err)
				}
			}
		})
	}
}

// readBack reads what was pushed, as a pull does.
func readBack(t *testing.T, c planes, repo string, ix, sig registrytest.Node) error {
	d, err := c.Resolve(t.Context(), repo, "v1")
	if err != nil || d.Digest != ix.Desc.Digest {
		return fmt.Errorf("resolve: %v, %w", d, err)
	}
	for _, o := range append(ix.Objects(repo), sig.Objects(repo)...) {
		r, err := c.Open(t.Context(), o, registry.Whole)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, registry.Verify(r, o.Digest, r.Descriptor.Size))
		if err = errors.Join(err, r.Close()); err != nil {
			return fmt.Errorf("read %v, %d bytes: %w", o, n, err)
		}
	}
	var tags []string
	for tag, err := range c.Tags(t.Context(), repo) {
		if err != nil {
			return err
		}
		tags = append(tags, tag)
	}
	found := 0
	for ref, err := range c.Referrers(t.Context(), repo, ix.Desc.Digest, "") {
		if err != nil {
			return err
		}
		if ref.Digest == sig.Desc.Digest {
			found++
		}
	}
	if len(tags) != 1 || found != 1 {
		return fmt.Errorf("tags %q, %d referrers", tags, found)
	}
	_, err = c.Resolve(t.Context(), repo, "none")
	if registry.ClassOf(err) != registry.NotFound {
		return fmt.Errorf("a tag that is not there: %w", err)
	}
	return nil
}

// Throttles carry their delay where ECR says one, and none where it does not; either way they are Throttled.
func TestThrottledClients(t *testing.T) {
	for _, seconds := range []int{0, 7} {
		emu := start(t, ecrtest.Options{Rates: map[string]float64{"BatchGetImage": 1}, Quirks: ecrtest.Quirks{RetryAfter: seconds}})
		emu.Registry(account, region).CreateRepository("app")
		for plane, c := range clients(t, emu) {
			var err error
			for range 5 {
				if _, err = c.Resolve(t.Context(), "app", "v1"); registry.ClassOf(err) == registry.Throttled {
					break
				}
			}
			var e *registry.Error
			if !errors.As(err, &e) || e.Class != registry.Throttled || e.RetryAfter != time.Duration(seconds)*time.Second {
				t.Errorf("%s, Retry-After %d: %v, %+v", plane, seconds, err, e)
			}
		}
	}
}

// The largest manifest, an archived image and an empty layer, which ECR does not have.
func TestClientsAtTheEdges(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	img := registrytest.Image(1, 10)
	push(t, client(t, emu, emu.Credentials(account)), "app", "v1", img)
	large := func(size int) registrytest.Node {
		n := img
		pad := size - len(img.Body) - len(`,"annotations":{"pad":""}`)
		n.Body = append(append([]byte{}, img.Body[:len(img.Body)-1]...), []byte(`,"annotations":{"pad":"`+strings.Repeat("0", pad)+`"}}`)...)
		n.Desc = registry.Descriptor{MediaType: img.Desc.MediaType, Digest: digest.FromBytes(n.Body), Size: int64(len(n.Body))}
		return n
	}
	for plane, c := range clients(t, emu) {
		most := large(registry.MaxManifestSize)
		if err := c.PutManifest(t.Context(), "app", "large", most.Desc, most.Body); err != nil {
			t.Errorf("%s: a manifest of %d bytes: %v", plane, len(most.Body), err)
		}
		if d, err := c.Resolve(t.Context(), "app", "large"); err != nil || d.Size != registry.MaxManifestSize {
			t.Errorf("%s: resolve: %+v, %v", plane, d, err)
		}
		more := large(registry.MaxManifestSize + 1)
		if err := c.PutManifest(t.Context(), "app", "larger", more.Desc, more.Body); registry.ClassOf(err) != registry.Invalid {
			t.Errorf("%s: a manifest of %d bytes: %v", plane, len(more.Body), err)
		}
		empty := registry.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(nil)}
		if err := c.PutBlob(t.Context(), "app", empty, http.NoBody); registry.ClassOf(err) != registry.Invalid {
			t.Errorf("%s: an empty layer: %v", plane, err)
		}
	}
	if _, err := client(t, emu, emu.Credentials(account)).UpdateImageStorageClass(t.Context(), &awsecr.UpdateImageStorageClassInput{RepositoryName: aws.String("app"),
		ImageId: &ecrtypes.ImageIdentifier{ImageTag: aws.String("v1")}, TargetStorageClass: "ARCHIVE"}); err != nil {
		t.Fatal(err)
	}
	for plane, c := range clients(t, emu) {
		if _, err := c.Resolve(t.Context(), "app", "v1"); registry.ClassOf(err) != registry.NotFound {
			t.Errorf("%s: an archived image: %v", plane, err)
		}
	}
}
