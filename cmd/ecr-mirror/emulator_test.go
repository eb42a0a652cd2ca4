package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
)

// The flags of the emulator reach it: roles with their policies, quotas, and strictness across accounts.
func TestEmulatorOptions(t *testing.T) {
	t.Parallel()
	now := time.Now() // it stands still: a bucket that is empty stays so
	policy := filepath.Join(t.TempDir(), "policy.json")
	must(t, os.WriteFile(policy, []byte(`{"Statement": {"Effect": "Allow", "Action": "ecr:DescribeRepositories", "Resource": "*"}}`), 0o600))
	emu, at, err := startEmulator(emulatorOptions{registries: []string{demoSourceAccount + "/" + demoSourceRegion, demoDestinationAccount + "/" + demoSourceRegion},
		roles: []string{demoSourceAccount + "/reader=" + policy}, strict: true, rates: map[string]float64{"ListImages": 1}, clock: func() time.Time { return now }})
	must(t, err)
	t.Cleanup(func() { emu.Close() })
	as := func(name string) *awsecr.Client {
		cfg := emu.Config(demoSourceAccount, demoSourceRegion)
		cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: at.AccessKeyID[name], SecretAccessKey: at.SecretAccessKey[name]}, nil
		})
		cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
		return awsecr.NewFromConfig(cfg)
	}
	must(t, emu.Registry(demoSourceAccount, demoSourceRegion).CreateRepository("app"))
	repo, own := aws.String("app"), aws.String(demoSourceAccount)
	describe := func(c *awsecr.Client) error {
		_, err := c.DescribeRepositories(t.Context(), &awsecr.DescribeRepositoriesInput{RegistryId: own})
		return err
	}
	list := func(c *awsecr.Client) error {
		_, err := c.ListImages(t.Context(), &awsecr.ListImagesInput{RegistryId: own, RepositoryName: repo})
		return err
	}
	admin, reader, other := as(demoSourceAccount), as(demoSourceAccount+"/reader"), as(demoDestinationAccount)
	for what, tc := range map[string]struct {
		err  error
		want string
	}{
		"what the role may":     {describe(reader), ""},
		"what the role may not": {list(reader), "AccessDeniedException"},
		"another account":       {describe(other), "AccessDeniedException"},
	} {
		if tc.want == "" && tc.err != nil || tc.want != "" && (tc.err == nil || !strings.Contains(tc.err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", what, tc.err, tc.want)
		}
	}
	if err := list(admin); err == nil || !strings.Contains(err.Error(), "ThrottlingException") { // the reader's was the one of this second
		t.Errorf("beyond the quota: %v", err)
	}
	for _, bad := range []string{"reader=" + policy, demoSourceAccount + "/reader", demoSourceAccount + "/reader=/no/such/file"} {
		if emu, _, err := startEmulator(emulatorOptions{roles: []string{bad}}); err == nil {
			emu.Close()
			t.Errorf("role %q: no error", bad)
		}
	}
}
