package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Repositories are created with the configured settings, and what this process writes keeps to the configured rate.
func TestRepositorySettingsAndRates(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination:
    registry: $destination
    endpoint: $endpoint
    rates: {putImage: 4}
    repositories: {tagMutability: IMMUTABLE, scanOnPush: true, tags: {owner: mirror}}
  replication: {sweep: 1m}
`)
	img := registrytest.Image(1, 100)
	r.seed("team/app", "v1", img)
	r.eventually("the image at the destination", func() bool { return r.replicated("team/app", "v1", img) })
	if want := fmt.Sprintf("ecr_mirror_ecr_rate{account=%q,call=%q,region=%q} 4\n", demoDestinationAccount, "PutImage", demoDestinationRegion); !strings.Contains(r.metrics(), want) {
		t.Errorf("no metric %s", want)
	}
	out, err := ecr.NewFromConfig(r.emu.Config(demoDestinationAccount, demoDestinationRegion)).DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{})
	if err != nil || len(out.Repositories) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	repo := out.Repositories[0]
	if repo.ImageTagMutability != "IMMUTABLE" || !repo.ImageScanningConfiguration.ScanOnPush {
		t.Errorf("created as %+v", repo)
	}
	tags, err := ecr.NewFromConfig(r.emu.Config(demoDestinationAccount, demoDestinationRegion)).ListTagsForResource(t.Context(),
		&ecr.ListTagsForResourceInput{ResourceArn: repo.RepositoryArn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "owner" || *tags.Tags[0].Value != "mirror" {
		t.Errorf("resource tags %v, %v", tags, err)
	}
}
