package ecr_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Each action is allowed to a role that has it, denied to one that has all others, and leaves everything as it was.
func TestProbe(t *testing.T) {
	actions := []string{"ecr:BatchCheckLayerAvailability", "ecr:BatchDeleteImage", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:CreateRepository",
		"ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:GetAccountSetting", "ecr:GetAuthorizationToken", "ecr:GetDownloadUrlForLayer", "ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy",
		"ecr:InitiateLayerUpload", "ecr:ListImages", "ecr:ListTagsForResource", "ecr:PutImage", "ecr:UploadLayerPart"}
	emu, admin := start(t, ecrtest.Options{})
	if err := admin.CreateRepository(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	img := registrytest.Image(1, 100)
	registrytest.Push(t, admin, "app", "v1", img)
	as := func(creds aws.Credentials) *ecr.Registry {
		tr := &http.Transport{}
		r, err := ecr.New(t.Context(), ecr.Options{Host: admin.String(), Endpoint: emu.ControlURL(), AWS: &aws.Config{
			HTTPClient: &http.Client{Transport: tr}, Credentials: credentials.StaticCredentialsProvider{Value: creds}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); tr.CloseIdleConnections() })
		return r
	}
	for _, a := range actions {
		others := slices.DeleteFunc(slices.Clone(actions), func(b string) bool { return a == b })
		with, without := as(emu.Role(account, "with-"+a[4:], append([]string{"ecr:DescribeRepositories"}, a)...)), as(emu.Role(account, "without-"+a[4:], others...))
		if err := with.Probe(t.Context(), a, "app"); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if err := without.Probe(t.Context(), a, "app"); registry.ClassOf(err) != registry.Denied {
			t.Errorf("without %s: %v", a, err)
		}
		err := with.Probe(t.Context(), a, "none")
		if unknown := a == "ecr:CreateRepository"; (err != nil) != unknown || unknown && registry.ClassOf(err) != registry.Internal {
			t.Errorf("%s on no repository: %v", a, err)
		}
	}
	if err := admin.Probe(t.Context(), "ecr:TagResource", "app"); registry.ClassOf(err) != registry.Invalid {
		t.Error(err)
	}
	emu.Registry(account, "us-west-2").SetDown(true)
	if err := admin.Probe(t.Context(), "ecr:PutImage", "app"); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("down: %v", err)
	}
	emu.Registry(account, "us-west-2").SetDown(false)
	var repos []string
	for repo, err := range admin.Repositories(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, repo)
	}
	if !slices.Equal(repos, []string{"app"}) {
		t.Errorf("repositories: %q", repos)
	}
	if d, err := admin.Resolve(t.Context(), "app", "v1"); err != nil || d.Digest != img.Desc.Digest {
		t.Error(d, err)
	}
}
