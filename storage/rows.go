package storage

import (
	"encoding/binary"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// The buckets of meta.db. Content is not in it: losing the file costs access times, tags and links, and a link is made
// again by one upstream Stat. An object that has links has a row in objects.
const (
	bucketObjects = "objects" // digest -> objectRow
	bucketLinks   = "links"   // digest \0 kind \0 namespace \0 repo -> linkRow
	bucketTags    = "tags"    // namespace \0 repo \0 tag -> tagRow
	bucketFormat  = "format"  // "version" -> formatVersion
	formatVersion = "1"
)

// place is where an object is asked for: bytes are shared between places, the right to read them is not.
type place struct {
	namespace, repo string
	kind            registry.Kind
}

func (p place) link(d digest.Digest) string {
	return d.String() + "\x00" + p.kind.String() + "\x00" + p.namespace + "\x00" + p.repo
}

// parseLink returns the object that a link's key is about.
func parseLink(key string) (digest.Digest, bool) {
	parts := strings.Split(key, "\x00")
	d := digest.Digest(parts[0])
	known := len(parts) == 4 && (parts[1] == registry.Blob.String() || parts[1] == registry.Manifest.String())
	return d, known && parts[3] != "" && d.Validate() == nil
}

// linkRow is the stored form of a link. Fields may be added; these keep their names and meaning.
type linkRow struct {
	MediaType string `json:"mediaType,omitempty"`
	Size      int64  `json:"size"`
}

// objectRow is what the next start wants to know of an object without asking for it. Stored as two big-endian 64-bit
// integers.
type objectRow struct {
	access int64 // Unix nanoseconds
	size   int64 // bytes
}

func (r objectRow) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(r.access)), uint64(r.size))
}

func decodeObject(v []byte) (r objectRow, ok bool) {
	if len(v) != 16 {
		return r, false
	}
	r = objectRow{int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))}
	return r, r.size >= 0
}
