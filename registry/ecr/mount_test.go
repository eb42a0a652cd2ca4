package ecr_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// mounting is an emulator whose account has BLOB_MOUNTING set to value, and a Registry whose V2 front is the emulator's.
func mounting(t *testing.T, value string) (*ecrtest.Emulator, *ecr.Registry) {
	t.Helper()
	emu, err := ecrtest.New(ecrtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	host := emu.Registry(account, region).Host()
	if err := emu.Start(ecrtest.Listen{Registries: map[string]string{host: ""}}); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	cfg := emu.Config(account, region)
	cfg.HTTPClient = &http.Client{Transport: tr}
	if _, err := awsecr.NewFromConfig(cfg).PutAccountSetting(t.Context(), &awsecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: &value}); err != nil {
		t.Fatal(err)
	}
	r, err := ecr.New(t.Context(), ecr.Options{Host: host, Front: "http://" + emu.RegistryHost(account, region), Endpoint: emu.ControlURL(), AWS: &cfg,
		Rates: map[string]float64{"PutImage": 1000}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); tr.CloseIdleConnections(); emu.Close() })
	return emu, r
}

// count returns how many calls of op the emulator had.
func count(emu *ecrtest.Emulator, op string) (n int) {
	for _, c := range emu.Calls() {
		if strings.Contains(c+" ", " "+op+" ") {
			n++
		}
	}
	return n
}

func TestMount(t *testing.T) {
	emu, r := mounting(t, "ENABLED")
	image, other := registrytest.Image(1, 1000), registrytest.Image(2, 1000)
	registrytest.Push(t, r, "from", "v1", image)
	registrytest.Push(t, r, "to", "v1", other)
	mount := func(d registry.Descriptor, from string) bool {
		t.Helper()
		ok, err := r.Mount(t.Context(), registry.Object{Repo: "to", Digest: d.Digest}, from)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for _, b := range image.Blobs {
		if !mount(b.Desc, "from") {
			t.Errorf("%s was not mounted", b.Desc.Digest)
		}
	}
	if err := r.PutManifest(t.Context(), "to", "v2", image.Desc, image.Body); err != nil {
		t.Errorf("the manifest over mounted blobs: %v", err)
	}
	if mount(registrytest.Image(3, 10).Blobs[0].Desc, "from") || mount(image.Blobs[0].Desc, "nowhere") {
		t.Error("what is not there was mounted")
	}
	if s, k := count(emu, "GetAccountSetting"), count(emu, "GetAuthorizationToken"); s != 1 || k != 1 {
		t.Errorf("%d questions for the setting, %d for a token, want one each", s, k)
	}
	if _, err := r.Mount(t.Context(), registry.Object{Repo: "Bad", Digest: image.Desc.Digest}, "from"); registry.ClassOf(err) != registry.Invalid {
		t.Errorf("a name that is none: %v", err)
	}
}

// Without the account's setting, or without the right to read it, nothing is asked of the V2 front.
func TestMountIsNotTriedInVain(t *testing.T) {
	for name, fault := range map[string]ecrtest.Fault{"disabled": {}, "may not read it": {Status: 400, Code: "AccessDeniedException"}} {
		value := "DISABLED"
		if fault.Status != 0 {
			value = "ENABLED"
		}
		emu, r := mounting(t, value)
		emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op == "GetAccountSetting" {
				return fault
			}
			return ecrtest.Fault{}
		})
		image := registrytest.Image(1, 1000)
		registrytest.Push(t, r, "from", "v1", image)
		for range 3 {
			if ok, err := r.Mount(t.Context(), registry.Object{Repo: "to", Digest: image.Blobs[0].Desc.Digest}, "from"); ok || err != nil {
				t.Errorf("%s: %v, %v", name, ok, err)
			}
		}
		if s, p := count(emu, "GetAccountSetting"), count(emu, "POST upload"); s != 1 || p != 0 {
			t.Errorf("%s: asked %d times for the setting and %d times for a mount", name, s, p)
		}
	}
}

// Every fault twice: the call failed, and it failed although it took effect. The next attempt succeeds either way.
func TestMountFaults(t *testing.T) {
	image := registrytest.Image(1, 1000)
	for _, op := range []string{"GetAccountSetting", "GetAuthorizationToken", "POST upload"} {
		for name, tt := range map[string]struct {
			fault ecrtest.Fault
			class registry.Class
		}{
			"503":                    {ecrtest.Fault{Status: 503}, registry.Unavailable},
			"503 after effect":       {ecrtest.Fault{Status: 503, After: true}, registry.Unavailable},
			"throttled":              {ecrtest.Fault{Status: 429, Code: "ThrottlingException"}, registry.Throttled},
			"no answer":              {ecrtest.Fault{HangUp: true}, registry.Unavailable},
			"no answer after effect": {ecrtest.Fault{HangUp: true, After: true}, registry.Unavailable},
		} {
			emu, r := mounting(t, "ENABLED")
			registrytest.Push(t, r, "from", "v1", image)
			registrytest.Push(t, r, "to", "v1", registrytest.Image(2, 10))
			var hit atomic.Bool
			emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
				if c.Op == op && hit.CompareAndSwap(false, true) {
					return tt.fault
				}
				return ecrtest.Fault{}
			})
			o := registry.Object{Repo: "to", Digest: image.Blobs[0].Desc.Digest}
			ok, err := r.Mount(t.Context(), o, "from")
			if ok || err == nil || registry.ClassOf(err) != tt.class {
				t.Errorf("%s, %s: %v, %v, want %v", op, name, ok, err, tt.class)
			}
			if ok, err := r.Mount(t.Context(), o, "from"); !ok || err != nil {
				t.Errorf("%s, %s: again: %v, %v", op, name, ok, err)
			}
		}
	}
}

// A token that is refused is replaced; that mount is declined, and the upload takes its place.
func TestMountWithARefusedToken(t *testing.T) {
	emu, r := mounting(t, "ENABLED")
	image := registrytest.Image(1, 1000)
	registrytest.Push(t, r, "from", "v1", image)
	registrytest.Push(t, r, "to", "v1", registrytest.Image(2, 10))
	emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "POST upload" && c.Nth == 0 {
			return ecrtest.Fault{Status: 403, Code: "DENIED", Message: "Your authorization token has expired. Reauthenticate and try again."}
		}
		return ecrtest.Fault{}
	})
	o := registry.Object{Repo: "to", Digest: image.Blobs[0].Desc.Digest}
	if ok, err := r.Mount(t.Context(), o, "from"); ok || err != nil {
		t.Errorf("with a refused token: %v, %v", ok, err)
	}
	if ok, err := r.Mount(t.Context(), o, "from"); !ok || err != nil || count(emu, "GetAuthorizationToken") != 2 {
		t.Errorf("with a new one: %v, %v", ok, err)
	}
}
