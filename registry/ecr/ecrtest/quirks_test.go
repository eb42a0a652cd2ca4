package ecrtest_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// TestQuirks does the same with each quirk off and on.
func TestQuirks(t *testing.T) {
	img := registrytest.Image(1, 10)
	body := []byte("0123456789")
	d := digest.FromBytes(body).String()
	for _, tc := range []struct {
		name   string
		quirks ecrtest.Quirks
		do     func(t *testing.T, emu *ecrtest.Emulator, c *ecr.Client, v *v2) int
		want   [2]int // off, on; -1: hung up on
	}{
		{"create on push", ecrtest.Quirks{CreateOnPush: true}, func(t *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("POST", "/v2/new/blobs/uploads/", nil)
			return resp.StatusCode
		}, [2]int{404, 202}},
		{"hang up", ecrtest.Quirks{HangUpOnMissing: true}, func(t *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			req, _ := http.NewRequestWithContext(t.Context(), "POST", v.base+"/v2/new/blobs/uploads/", nil)
			req.Header.Set("Authorization", "Basic "+v.token)
			resp, err := v.http.Do(req)
			if err != nil {
				return -1
			}
			resp.Body.Close()
			return resp.StatusCode
		}, [2]int{404, -1}},
		{"unreferenced layers", ecrtest.Quirks{ServeUnreferenced: true}, func(t *testing.T, _ *ecrtest.Emulator, c *ecr.Client, v *v2) int {
			if err := upload(t, c, "app", body, 100); err != nil {
				t.Fatal(err)
			}
			resp, _ := v.do("GET", "/v2/app/blobs/"+d, nil)
			return resp.StatusCode
		}, [2]int{404, 307}},
		{"unreferenced layers are a bad request", ecrtest.Quirks{MissingBlob400: true}, func(t *testing.T, _ *ecrtest.Emulator, c *ecr.Client, v *v2) int {
			if err := upload(t, c, "app", body, 100); err != nil {
				t.Fatal(err)
			}
			resp, _ := v.do("GET", "/v2/app/blobs/"+d, nil)
			return resp.StatusCode
		}, [2]int{404, 400}},
		{"deletion by tag", ecrtest.Quirks{TagDeleteFails: true}, func(_ *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("DELETE", "/v2/app/manifests/v1", nil)
			return resp.StatusCode
		}, [2]int{202, 405}},
		{"deletion of an upload", ecrtest.Quirks{UploadDeleteFails: true}, func(_ *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("POST", "/v2/app/blobs/uploads/", nil)
			resp, _ = v.do("DELETE", resp.Header.Get("Location"), nil)
			return resp.StatusCode
		}, [2]int{204, 405}},
		{"single POST", ecrtest.Quirks{SinglePost: true}, func(_ *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("POST", "/v2/app/blobs/uploads/?digest="+d, body)
			return resp.StatusCode
		}, [2]int{202, 201}},
		{"lax manifests", ecrtest.Quirks{LaxManifests: true}, func(t *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			odd := bytes.Replace(img.Body, []byte(`"config":{`), []byte(`"config":{"annotations":{"a":"b"},`), 1)
			resp, _ := v.do("PUT", "/v2/app/manifests/odd", odd, "Content-Type", img.Desc.MediaType)
			return resp.StatusCode
		}, [2]int{405, 201}},
		{"empty last PUT", ecrtest.Quirks{EmptyFinalPutFails: true}, func(t *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("POST", "/v2/app/blobs/uploads/", nil)
			u := resp.Header.Get("Location")
			v.do("PATCH", u, body[:5])
			v.do("PATCH", u, body[5:])
			resp, _ = v.do("PUT", u+"?digest="+d, nil)
			return resp.StatusCode
		}, [2]int{201, 500}},
		{"conversion", ecrtest.Quirks{NoConversion: true}, func(t *testing.T, _ *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			resp, _ := v.do("GET", "/v2/app/manifests/v1", nil, "Accept", registry.MediaTypeDockerManifest)
			return resp.StatusCode
		}, [2]int{200, 404}},
		{"other region", ecrtest.Quirks{WrongRegion400: true}, func(t *testing.T, emu *ecrtest.Emulator, _ *ecr.Client, v *v2) int {
			v.base = "http://" + emu.RegistryHost(account, "eu-central-1")
			resp, _ := v.do("GET", "/v2/", nil)
			return resp.StatusCode
		}, [2]int{403, 400}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got [2]int
			for i, q := range []ecrtest.Quirks{{}, tc.quirks} {
				emu := start(t, ecrtest.Options{Quirks: q})
				c := client(t, emu, emu.Credentials(account))
				push(t, c, "app", "v1", img)
				got[i] = tc.do(t, emu, c, v2Client(t, emu, c))
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestArchive(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	push(t, c, "app", "v1", registrytest.Image(1, 10))
	v := v2Client(t, emu, c)
	seen := func(to ecrtypes.TargetStorageClass) (int, int) {
		t.Helper()
		if _, err := c.UpdateImageStorageClass(t.Context(), &ecr.UpdateImageStorageClassInput{RepositoryName: aws.String("app"),
			ImageId: &ecrtypes.ImageIdentifier{ImageTag: aws.String("v1")}, TargetStorageClass: to}); err != nil {
			t.Fatal(err)
		}
		out, err := c.ListImages(t.Context(), &ecr.ListImagesInput{RepositoryName: aws.String("app")})
		if err != nil {
			t.Fatal(err)
		}
		resp, _ := v.do("GET", "/v2/app/manifests/v1", nil)
		return len(out.ImageIds), resp.StatusCode
	}
	if n, status := seen("ARCHIVE"); n != 0 || status != 404 {
		t.Errorf("archived: %d in the list, pull %d", n, status)
	}
	if n, status := seen("STANDARD"); n != 1 || status != 200 {
		t.Errorf("restored: %d in the list, pull %d", n, status)
	}
}

func TestKMSAlias(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	for name, alias := range map[string]string{"short": "alias/k", "whole": "arn:aws:kms:us-west-2:111122223333:alias/k"} {
		out, err := c.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name,
			EncryptionConfiguration: &ecrtypes.EncryptionConfiguration{EncryptionType: "KMS", KmsKey: &alias}})
		if err != nil {
			t.Fatal(err)
		}
		if key := *out.Repository.EncryptionConfiguration.KmsKey; !strings.HasPrefix(key, "arn:aws:kms:us-west-2:111122223333:key/") {
			t.Errorf("%s is described with %s", alias, key)
		}
	}
}

func TestRepositorySettings(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	ctx, name := t.Context(), aws.String("team/app")
	out, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: name, ImageTagMutability: "IMMUTABLE_WITH_EXCLUSION",
		ImageTagMutabilityExclusionFilters: []ecrtypes.ImageTagMutabilityExclusionFilter{{Filter: aws.String("latest*"), FilterType: "WILDCARD"}},
		Tags:                               []ecrtypes.Tag{{Key: aws.String("team"), Value: aws.String("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	r := out.Repository
	if *r.RepositoryUri != "111122223333.dkr.ecr.us-west-2.amazonaws.com/team/app" || *r.RepositoryArn != "arn:aws:ecr:us-west-2:111122223333:repository/team/app" ||
		r.EncryptionConfiguration.EncryptionType != "AES256" || *r.ImageTagMutabilityExclusionFilters[0].Filter != "latest*" {
		t.Errorf("%+v", r)
	}
	if _, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: name}); code(err) != "RepositoryAlreadyExistsException" {
		t.Error(err)
	}
	if _, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: aws.String("../x")}); code(err) != "InvalidParameterException" {
		t.Error(err)
	}
	if _, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"team/app", "none"}}); code(err) != "RepositoryNotFoundException" {
		t.Error(err)
	}
	tags, err := c.ListTagsForResource(ctx, &ecr.ListTagsForResourceInput{ResourceArn: r.RepositoryArn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "team" {
		t.Error(tags, err)
	}
	same := &ecrtypes.ReplicationConfiguration{Rules: []ecrtypes.ReplicationRule{{Destinations: []ecrtypes.ReplicationDestination{{Region: aws.String(region), RegistryId: aws.String(account)}}}}}
	if _, err := c.PutReplicationConfiguration(ctx, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: same}); code(err) != "InvalidParameterException" {
		t.Error(err)
	}
	if _, err := c.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: name}); code(err) != "RepositoryPolicyNotFoundException" {
		t.Error(err)
	}
}
