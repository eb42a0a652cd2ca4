package ecr_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// assumed is a registry that is reached with a role of the emulator, whose clock moves by hand: what expires there looks valid here.
func assumed(t *testing.T, o ecrtest.Options) (emu *ecrtest.Emulator, r *ecr.Registry, later func(time.Duration)) {
	t.Helper()
	var ahead atomic.Int64
	o.Clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	emu, admin := start(t, o)
	if err := admin.CreateRepository(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, admin, "app", "v1", registrytest.Image(1, 100))
	emu.Role(account, "mirror", "ecr:*")
	cfg, tr := emu.Config(account, region), &http.Transport{}
	cfg.HTTPClient = &http.Client{Transport: tr}
	r, err := ecr.New(t.Context(), ecr.Options{Host: admin.String(), Endpoint: emu.ControlURL(), AWS: &cfg, RoleARN: "arn:aws:iam::" + account + ":role/mirror"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); tr.CloseIdleConnections() })
	return emu, r, func(d time.Duration) { ahead.Add(int64(d)) }
}

// Credentials that AWS says are expired are renewed once, by the first of the calls that were refused; the others go on with the new ones.
func TestExpiredCredentialsAreRenewed(t *testing.T) {
	emu, r, later := assumed(t, ecrtest.Options{})
	resolve := func() error {
		_, err := r.Resolve(t.Context(), "app", "v1")
		return err
	}
	if err := resolve(); err != nil {
		t.Fatal(err)
	}
	later(2 * time.Hour)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := resolve(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	refused := 0
	emu.ResetCalls()
	emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "BatchGetImage" {
			refused++
			return ecrtest.Fault{Status: 400, Code: "ExpiredTokenException"}
		}
		return ecrtest.Fault{}
	})
	if err := resolve(); registry.ClassOf(err) != registry.Denied || refused != 2 {
		t.Errorf("refused whatever the credentials: %d calls, %v", refused, err)
	}
}

// What only says that the caller may not is not tried again.
func TestDeniedIsNotRenewed(t *testing.T) {
	emu, r, _ := assumed(t, ecrtest.Options{})
	emu.Role(account, "mirror", "ecr:PutImage")
	emu.ResetCalls()
	if _, err := r.Resolve(t.Context(), "app", "v1"); registry.ClassOf(err) != registry.Denied {
		t.Error(err)
	}
	if n := strings.Count(fmt.Sprint(emu.Calls()), "BatchGetImage"); n != 1 {
		t.Errorf("%d calls", n)
	}
}

func TestIdentity(t *testing.T) {
	_, r, _ := assumed(t, ecrtest.Options{})
	who, err := r.Identity(t.Context())
	if err != nil || who.ARN != "arn:aws:sts::111122223333:assumed-role/mirror/ecr-mirror" || who.Account != account || who.Skew.Abs() > 5*time.Second {
		t.Errorf("%+v, %v", who, err)
	}
	cfg := aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return aws.Credentials{}, fmt.Errorf("none") })}
	none, err := ecr.New(t.Context(), ecr.Options{Host: r.String(), AWS: &cfg})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Identity(t.Context()); registry.ClassOf(err) != registry.Denied {
		t.Errorf("without credentials: %v", err)
	}
}

// Credentials count when they are others than before, or cannot be had; not each time that a call is signed with them.
func TestCredentialFetchesAreCounted(t *testing.T) {
	emu, admin := start(t, ecrtest.Options{})
	limits, calls := ecr.NewLimits(), 0
	cfg, tr := emu.Config(account, region), &http.Transport{}
	defer tr.CloseIdleConnections()
	cfg.HTTPClient = &http.Client{Transport: tr}
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		switch calls++; calls {
		case 1, 2:
			return emu.Credentials(account), nil
		case 3:
			return aws.Credentials{}, fmt.Errorf("none")
		}
		return aws.Credentials{AccessKeyID: "another", SecretAccessKey: "key"}, nil
	})
	r, err := ecr.New(t.Context(), ecr.Options{Host: admin.String(), Endpoint: emu.ControlURL(), AWS: &cfg, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for range 4 {
		_, _ = r.Resolve(t.Context(), "app", "v1") // what it says is not the question
	}
	want := `# HELP ecr_mirror_credential_fetches_total AWS credentials that were taken up, at the start and when they were renewed, by registry and result: ok, or the class of the error.
# TYPE ecr_mirror_credential_fetches_total counter
ecr_mirror_credential_fetches_total{registry="` + r.String() + `",result="denied"} 1
ecr_mirror_credential_fetches_total{registry="` + r.String() + `",result="ok"} 2
`
	reg := prometheus.NewRegistry()
	reg.MustRegister(limits.Collectors()...)
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "ecr_mirror_credential_fetches_total"); err != nil {
		t.Error(err)
	}
}
