package main

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What ECR's own replication brought is ready and asks for no job; what it left out is absent, and what it did not follow is behind.
func TestBesideNativeReplication(t *testing.T) {
	t.Parallel()
	const account, from, to = "111122223333", "us-west-2", "eu-central-1"
	w := newWalk(t, account, from)
	there := w.at(account, to)
	replicates := func(destinations ...string) {
		t.Helper()
		id, rules := account, []ecrtypes.ReplicationRule{}
		for _, region := range destinations {
			rules = append(rules, ecrtypes.ReplicationRule{Destinations: []ecrtypes.ReplicationDestination{{Region: &region, RegistryId: &id}}})
		}
		_, err := ecr.NewFromConfig(w.emu.Config(account, from)).PutReplicationConfiguration(t.Context(),
			&ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{Rules: rules}})
		must(t, err)
	}
	r := w.mirror(`
- source:      {registry: `+account+`.dkr.ecr.`+from+`.amazonaws.com, endpoint: $endpoint}
  destination: {registry: `+account+`.dkr.ecr.`+to+`.amazonaws.com, endpoint: $endpoint}
  tags: {ttl: 0s}
`, w.credentials(account))
	before, img := registrytest.Image(1, 1000), registrytest.Index(registrytest.Image(2, 1000), registrytest.Image(3, 1000))
	w.pushed("team/before", "v1", before) // ECR does not replicate what is there already
	replicates(to)
	w.pushed("team/app", "v1", img)
	w.pushed("team/app", "", registrytest.Referrer(img.Desc, "application/signature", []byte("ok")))

	a := r.asker(true)
	answer, err := a.wait(t.Context(), "team/app:v1", 20*time.Second)
	if err != nil || len(answer.Images) != 1 {
		t.Fatalf("ready: %v, %+v", err, answer)
	}
	if !w.has(there, "team/app", "v1", img) {
		t.Error("ready before it was there")
	}
	for _, a := range []*asker{a, r.asker(false)} {
		e := r.ask(a, "team/app:v1")
		if e.State != "ready" || e.Digest != img.Desc.Digest || e.Have != "" && e.Have != e.Digest || len(e.Missing) > 0 || e.PushedAt.IsZero() || e.PullableAt.IsZero() || e.Attempts != 0 {
			t.Errorf("status of what ECR replicated: %+v", e)
		}
		if e := r.ask(a, "team/before:v1"); e.State != "absent" || !e.PullableAt.IsZero() {
			t.Errorf("status of what ECR left out: %+v", e)
		}
	}
	if _, err := a.wait(t.Context(), "team/before:v1", 0); err == nil || cli.CodeOf(err) != cli.NotYet {
		t.Errorf("ready of what ECR left out: %v", err)
	}
	found, end := r.planned(r.config(true), false)
	if d := cmp.Diff([]string{"add tag team/before:v1"}, found); d != "" || end.Error != "" {
		t.Errorf("plan (-want +got):\n%s%s", d, end.Error)
	}

	replicates() // nowhere any more
	w.pushed("team/app", "v1", before)
	if e := r.ask(a, "team/app:v1"); e.State != "behind" || e.Digest != before.Desc.Digest {
		t.Errorf("status of a tag that moved on: %+v", e)
	}
	if _, err := a.wait(t.Context(), "team/app:v1", 0); err == nil || cli.CodeOf(err) != cli.NotYet {
		t.Errorf("ready of a tag that moved on: %v", err)
	}
	if n := r.writes(account, to); n > 0 {
		t.Errorf("%d writes of the mirror to the destination", n)
	}
}
