package ecr

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// manifestCache lets Open after Resolve or Stat of the same manifest be one upstream call. It answers Open only, and only
// for a moment: Stat must see a deletion at once, and keeping content is the store's business.
type manifestCache struct {
	entries *lru.Cache[registry.Object, manifestEntry]
}

type manifestEntry struct {
	desc registry.Descriptor
	body []byte
	at   time.Time
}

const (
	manifestEntries  = 64
	manifestMoment   = 5 * time.Second
	manifestMaxBytes = 256 << 10 // larger ones are rare and are fetched again
)

func newManifestCache() *manifestCache {
	c, err := lru.New[registry.Object, manifestEntry](manifestEntries)
	if err != nil {
		panic(err) // unreachable: the size is positive
	}
	return &manifestCache{c}
}

func (c *manifestCache) put(o registry.Object, d registry.Descriptor, body []byte) {
	if len(body) <= manifestMaxBytes {
		c.entries.Add(o, manifestEntry{d, body, time.Now()})
	}
}

func (c *manifestCache) get(o registry.Object) (registry.Descriptor, []byte, bool) {
	e, ok := c.entries.Get(o)
	if !ok || time.Since(e.at) > manifestMoment {
		return registry.Descriptor{}, nil, false
	}
	return e.desc, e.body, true
}

func (c *manifestCache) forget(o registry.Object) { c.entries.Remove(o) }

// urlCache keeps the presigned URLs of blobs.
type urlCache struct {
	entries *lru.Cache[registry.Object, layerURL]
}

const urlEntries = 4096

func newURLCache() *urlCache {
	c, err := lru.New[registry.Object, layerURL](urlEntries)
	if err != nil {
		panic(err) // unreachable: the size is positive
	}
	return &urlCache{c}
}

// get returns the URL of o unless it is time to renew it.
func (c *urlCache) get(o registry.Object) (layerURL, bool) {
	u, ok := c.entries.Get(o)
	return u, ok && time.Now().Before(u.renew)
}

func (c *urlCache) put(o registry.Object, u layerURL) { c.entries.Add(o, u) }

// forget drops u, but not a newer URL that somebody else has fetched since.
func (c *urlCache) forget(o registry.Object, u layerURL) {
	if now, ok := c.entries.Peek(o); ok && now.url == u.url {
		c.entries.Remove(o)
	}
}
