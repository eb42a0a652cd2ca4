package main

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What was pushed before there was a mirror is replicated without an event and without being pulled.
func TestSweepReplicates(t *testing.T) {
	t.Parallel()
	const account = "111122223333"
	w := newWalk(t, account, "us-west-2")
	there := w.at(account, "eu-central-1")
	img, other := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20)
	w.pushed("team/app", "v1", img)
	w.pushed("private", "v1", other)
	r := w.mirror(`
- source:      {registry: `+account+`.dkr.ecr.us-west-2.amazonaws.com, endpoint: $endpoint}
  destination: {registry: `+account+`.dkr.ecr.eu-central-1.amazonaws.com, endpoint: $endpoint}
  replication: {sweep: 1m, rules: [{repositories: [team/*]}]}
`, w.credentials(account))
	r.eventually("team/app:v1 at the destination", func() bool { return w.has(there, "team/app", "v1", img) })
	if w.has(there, "private", "v1", other) {
		t.Error("what no rule wants was replicated")
	}
}
