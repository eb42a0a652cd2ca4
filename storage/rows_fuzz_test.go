package storage

import (
	"bytes"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Whatever a row of the metadata holds, what is read of it is safe to make paths and accounts of.
func FuzzRows(f *testing.F) {
	d := digest.FromString("1")
	f.Add(place{"mirror.example.com", "team/app", registry.Blob}.link(d), objectRow{access: 1, size: 2}.encode())
	f.Add("sha256:../..\x00blob\x00m\x00app", []byte{0xff})
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		if d, ok := parseLink(key); ok && d.Validate() != nil {
			t.Errorf("link %q is about %q", key, d)
		}
		r, ok := decodeObject(value)
		if ok && (r.size < 0 || !bytes.Equal(r.encode(), value)) {
			t.Errorf("object %x is %+v", value, r)
		}
		if d, err := parseFillName(key); err == nil && d.Validate() != nil {
			t.Errorf("fill %q is of %q", key, d)
		}
	})
}
