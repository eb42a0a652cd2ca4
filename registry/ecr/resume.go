package ecr

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// uploads are those that broke off, for the next attempt to go on with. How long ECR keeps one is not documented.
type uploads struct {
	broken *lru.Cache[registry.Object, brokenUpload]
}

type brokenUpload struct {
	upload
	at time.Time
}

const (
	maxBroken  = 256 // remembered
	resumeLife = time.Hour
)

func newUploads() *uploads {
	c, _ := lru.New[registry.Object, brokenUpload](maxBroken) // fails only for a size below 1
	return &uploads{c}
}

// take returns the broken upload of o, which is then the caller's alone.
func (u *uploads) take(o registry.Object, now time.Time) (upload, bool) {
	b, ok := u.broken.Peek(o)
	if !ok || !u.broken.Remove(o) || now.Sub(b.at) > resumeLife {
		return upload{}, false
	}
	return b.upload, true
}

// keep remembers an upload of which something is there.
func (u *uploads) keep(o registry.Object, up upload, now time.Time) {
	if up.first > 0 {
		u.broken.Add(o, brokenUpload{up, now})
	}
}
