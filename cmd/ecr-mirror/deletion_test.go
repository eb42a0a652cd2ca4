package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What is deleted at the source is deleted at the destination, if the mirror brought it and it is not merely out of sight.
func TestDeletesPropagate(t *testing.T) {
	t.Parallel()
	r := newRig(t, "  events: {sqs: $queue}\n  replication: {deletes: propagate, deletion: {grace: 0s}}\n")
	api := awsecr.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
	images := map[string]registrytest.Node{}
	for i, repo := range []string{"deleted", "retagged", "archived", "expiring", "theirs"} {
		images[repo] = registrytest.Image(uint64(i), 100)
		if err := r.source.CreateRepository(repo); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.destination.CreateRepository("theirs"); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, r.arrives, "theirs", "v1", images["theirs"])
	for repo, n := range images {
		registrytest.Push(t, r.push, repo, "v1", n)
	}
	registrytest.Push(t, r.push, "retagged", "v2", images["retagged"])
	for repo, n := range images {
		r.eventually(repo, func() bool { return r.replicated(repo, "v1", n) })
	}
	r.eventually("an empty queue", r.noMessages)
	r.idle()

	remove := func(repo string, id types.ImageIdentifier) {
		t.Helper()
		out, err := api.BatchDeleteImage(t.Context(), &awsecr.BatchDeleteImageInput{RepositoryName: &repo, ImageIds: []types.ImageIdentifier{id}})
		if err != nil || len(out.Failures) > 0 {
			t.Fatalf("%v, %v", out, err)
		}
	}
	if _, err := api.PutLifecyclePolicy(t.Context(), &awsecr.PutLifecyclePolicyInput{RepositoryName: aws.String("expiring"), LifecyclePolicyText: aws.String(`{"rules": [{"rulePriority": 1,
		"selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 100}, "action": {"type": "expire"}}]}`)}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.UpdateImageStorageClass(t.Context(), &awsecr.UpdateImageStorageClassInput{RepositoryName: aws.String("archived"),
		ImageId: &types.ImageIdentifier{ImageTag: aws.String("v1")}, TargetStorageClass: types.TargetStorageClassArchive}); err != nil {
		t.Fatal(err)
	}
	r.emu.SendMessage(demoSourceAccount, demoSourceRegion, demoQueue, fmt.Sprintf(`{"source": "aws.ecr", "detail-type": "ECR Image Action",
		"account": %q, "region": %q, "time": "2026-11-21T15:00:00Z", "detail": {"result": "SUCCESS", "action-type": "DELETE",
		"repository-name": "archived", "image-tag": "v1", "image-digest": %q}}`, demoSourceAccount, demoSourceRegion, images["archived"].Desc.Digest)) // forged
	for _, repo := range []string{"deleted", "expiring", "theirs"} {
		remove(repo, types.ImageIdentifier{ImageDigest: aws.String(images[repo].Desc.Digest.String())})
	}
	remove("retagged", types.ImageIdentifier{ImageTag: aws.String("v2")})
	r.eventually("an empty queue", r.noMessages)
	found := map[string]int{}
	_, _, err := (&planner{queue: r.app.queue, sweeps: r.app.compare, reapers: r.app.reapers}).plan(t.Context(), false, func(l planLine) error {
		if l.Difference != nil && !l.Difference.DueAt.IsZero() {
			found[l.Difference.Repository+" "+l.Difference.Action]++
		}
		return nil
	})
	if d := cmp.Diff(map[string]int{"deleted delete": 1, "archived keep: still there": 1, "retagged keep: still there": 1,
		"expiring keep: may have expired": 1}, found); d != "" || err != nil {
		t.Errorf("plan (-want +got):\n%s%v", d, err)
	}
	for _, reaper := range r.app.reapers {
		if err := reaper.Once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for repo, n := range images {
		_, err := r.arrives.Stat(t.Context(), registry.Object{Repo: repo, Kind: registry.Manifest, Digest: n.Desc.Digest})
		if gone := registry.ClassOf(err) == registry.NotFound; gone != (repo == "deleted") || !gone && err != nil {
			t.Errorf("%s at the destination: %v", repo, err)
		}
	}
	for result, want := range map[string]int{"deleted": 1, "still_there": 2, "may_have_expired": 1} {
		line := fmt.Sprintf("ecr_mirror_deletions_total{destination=%q,mirror=%q,result=%q} %d\n", ownName, demoSourceHost, result, want)
		if m := r.metrics(); !strings.Contains(m, line) {
			t.Errorf("no %s", line)
		}
	}
}
