package main

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What was pushed before there was a mirror, or while its events were lost, is replicated without being pulled.
func TestSweepReplicates(t *testing.T) {
	t.Parallel()
	r := newRig(t, "  replication: {sweep: 1m, rules: [{repositories: [team/*]}]}\n")
	img, other := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20)
	r.seed("team/app", "v1", img)
	r.seed("private", "v1", other)
	r.eventually("team/app:v1 at the destination", func() bool { return r.replicated("team/app", "v1", img) })
	if r.replicated("private", "v1", other) {
		t.Error("what no rule wants was replicated")
	}
}
