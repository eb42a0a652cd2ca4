package replicate

import (
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// FromChange returns the job that c asks for: a push with a tag is the tag's job, whatever digest the event names; a push
// without one is that content's. false: nothing to do, for a delete is not replicated by copying and a change whose names
// or digest are not valid came from no registry. Whether the rules want the repository is the caller's to ask.
func FromChange(mirror, destination string, c registry.Change) (Job, bool) {
	if c.Op != registry.Push {
		return Job{}, false
	}
	return newJob(mirror, destination, c.Repo, c.Tag, c.Digest, c.At)
}

// FromMiss returns the job for a manifest that a pull at the time at found at the source only. tag is what the client
// asked for, "" when it asked by digest. Its lane is that of events: the client waits for its own reads, which have the client's
// lane, and for no write to the destination, so the job neither goes before a push nor takes quota from another pull.
func FromMiss(mirror, destination, repo, tag string, d digest.Digest, at time.Time) (Job, bool) {
	return newJob(mirror, destination, repo, tag, d, at)
}

func newJob(mirror, destination, repo, tag string, d digest.Digest, at time.Time) (Job, bool) {
	j := Job{Key: Key{Mirror: mirror, Destination: destination, Repo: repo, Tag: tag}, Lane: registry.LaneEvent, SeenAt: at}
	if tag == "" {
		j.Digest = d
	} else {
		j.Hint = d
	}
	if j.Validate() != nil || d != "" && d.Validate() != nil {
		return Job{}, false
	}
	return j, true
}
