package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// ECR's own replication and the mirror bring the same images to the same destination at once: each arrives, with immutable
// tags as well, and nothing is given up.
func TestAtOnceWithNativeReplication(t *testing.T) {
	t.Parallel()
	const account, from, to = "111122223333", "us-west-2", "eu-central-1"
	w := newWalk(t, account, from)
	there, id, region := w.at(account, to), account, to
	_, err := ecr.NewFromConfig(w.emu.Config(account, from)).PutReplicationConfiguration(t.Context(), &ecr.PutReplicationConfigurationInput{
		ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{Rules: []ecrtypes.ReplicationRule{{Destinations: []ecrtypes.ReplicationDestination{{Region: &region, RegistryId: &id}}}}}})
	must(t, err)
	for repo, mutability := range map[string]ecrtypes.ImageTagMutability{"team/app": ecrtypes.ImageTagMutabilityMutable, "team/fixed": ecrtypes.ImageTagMutabilityImmutable} {
		_, err := ecr.NewFromConfig(w.emu.Config(account, to)).CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repo, ImageTagMutability: mutability})
		must(t, err)
	}
	r := w.mirror(`
- source:      {registry: `+account+`.dkr.ecr.`+from+`.amazonaws.com, endpoint: $endpoint}
  destination: {registry: `+account+`.dkr.ecr.`+to+`.amazonaws.com, endpoint: $endpoint}
  events: {sqs: $queue}
`, w.credentials(account))
	for i := range 8 {
		repo, tag := []string{"team/app", "team/fixed"}[i%2], fmt.Sprint("v", i)
		img := registrytest.Image(uint64(i+1), 1000, 2000)
		w.pushed(repo, tag, img)
		a := r.asker(true)
		answer, err := a.wait(t.Context(), repo+":"+tag, 20*time.Second)
		if err != nil || len(answer.Images) != 1 || !w.has(there, repo, tag, img) {
			t.Errorf("%s:%s: %v, %+v", repo, tag, err, answer)
		}
	}
	r.eventually("the queue is done", func() bool { return r.app.queue.Pending().Waiting() == 0 })
	if c := r.app.queue.Pending(); c.Dead+c.Conflict > 0 {
		t.Errorf("given up: %+v", c)
	}
	if found, end := r.planned(r.config(true), false); len(found) > 0 || end.Error != "" {
		t.Errorf("plan: %v %s", found, end.Error)
	}
}

// Without events and with onMiss: false a mirror serves beside whoever else replicates, and writes nothing.
func TestWritesNothingBeside(t *testing.T) {
	t.Parallel()
	r := newRig(t, "  replication: {onMiss: false}\n")
	img := registrytest.Image(1, 1000)
	r.seed("team/app", "v1", img)
	must(t, r.pulled("team/app", "v1"))
	found, _ := r.planned(r.config(true), false)
	if len(found) == 0 {
		t.Error("plan finds nothing to do")
	}
	if n := r.writes(demoDestinationAccount, demoDestinationRegion); n > 0 {
		t.Errorf("%d images written to the destination", n)
	}
}
