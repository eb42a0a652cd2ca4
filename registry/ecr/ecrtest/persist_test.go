package ecrtest_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	emu := start(t, ecrtest.Options{Dir: dir})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 5000)
	push(t, c, "team/app", "v1", registrytest.Index(img))
	push(t, c, "gone", "v1", img)
	c.PutImageTagMutability(t.Context(), &ecr.PutImageTagMutabilityInput{RepositoryName: aws.String("team/app"), ImageTagMutability: "IMMUTABLE"})
	c.PutAccountSetting(t.Context(), &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")})
	c.PutReplicationConfiguration(t.Context(), &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{
		Rules: []ecrtypes.ReplicationRule{{Destinations: []ecrtypes.ReplicationDestination{{Region: aws.String("eu-central-1"), RegistryId: aws.String(account)}}}}}})
	if _, err := c.DeleteRepository(t.Context(), &ecr.DeleteRepositoryInput{RepositoryName: aws.String("gone"), Force: true}); err != nil {
		t.Fatal(err)
	}
	u, err := c.InitiateLayerUpload(t.Context(), &ecr.InitiateLayerUploadInput{RepositoryName: aws.String("team/app")})
	if err != nil {
		t.Fatal(err)
	}
	v := v2Client(t, emu, c)
	token := v.token
	os.WriteFile(filepath.Join(dir, "content", "stage-killed"), []byte("x"), 0o600) // as a kill leaves it
	emu.Close()

	emu = start(t, ecrtest.Options{Dir: dir})
	c = client(t, emu, emu.Credentials(account))
	repos, err := c.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{})
	if err != nil || len(repos.Repositories) != 1 || *repos.Repositories[0].RepositoryName != "team/app" || repos.Repositories[0].ImageTagMutability != "IMMUTABLE" {
		t.Fatalf("%+v %v", repos, err)
	}
	v = v2Client(t, emu, c)
	v.token = token // still good
	resp, _ := v.do("GET", "/v2/team/app/blobs/"+img.Blobs[1].Desc.Digest.String(), nil)
	resp, err = v.http.Get(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != string(img.Blobs[1].Body) {
		t.Errorf("%d: %d bytes", resp.StatusCode, len(b))
	}
	if _, body := v.do("GET", "/v2/team/app/manifests/v1", nil); body != string(registrytest.Index(img).Body) {
		t.Error(body)
	}
	if s, err := c.GetAccountSetting(t.Context(), &ecr.GetAccountSettingInput{Name: aws.String("BLOB_MOUNTING")}); err != nil || *s.Value != "ENABLED" {
		t.Error(s, err)
	}
	if r, err := c.DescribeRegistry(t.Context(), &ecr.DescribeRegistryInput{}); err != nil || len(r.ReplicationConfiguration.Rules) != 1 {
		t.Error(r, err)
	}
	if _, err := c.CompleteLayerUpload(t.Context(), &ecr.CompleteLayerUploadInput{RepositoryName: aws.String("team/app"), UploadId: u.UploadId, LayerDigests: []string{"x"}}); code(err) != "UploadNotFoundException" {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "content", "stage-*")); len(left) != 0 {
		t.Error(left)
	}
}
