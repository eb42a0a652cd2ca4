package registry_test

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func TestVerify(t *testing.T) {
	body := []byte("the quick brown fox")
	d256, d512 := digest.FromBytes(body), digest.SHA512.FromBytes(body)
	size := int64(len(body))
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		r    io.Reader
		d    digest.Digest
		size int64
		want error // nil: sound
	}{
		{"right", bytes.NewReader(body), d256, size, nil},
		{"right, sha512", bytes.NewReader(body), d512, size, nil},
		{"right, byte by byte", iotest.OneByteReader(bytes.NewReader(body)), d256, size, nil},
		{"right, data with EOF", iotest.DataErrReader(bytes.NewReader(body)), d256, size, nil},
		{"empty", bytes.NewReader(nil), digest.FromBytes(nil), 0, nil},
		{"other bytes", bytes.NewReader(bytes.ToUpper(body)), d256, size, registry.Corrupt},
		{"shorter", bytes.NewReader(body[1:]), d256, size, registry.Corrupt},
		{"longer", bytes.NewReader(append(bytes.Clone(body), '!')), d256, size, registry.Corrupt},
		{"longer, byte by byte", iotest.OneByteReader(bytes.NewReader(append(bytes.Clone(body), '!'))), d256, size, registry.Corrupt},
		{"nothing", bytes.NewReader(nil), d256, size, registry.Corrupt},
		{"broken", io.MultiReader(bytes.NewReader(body[:5]), iotest.ErrReader(broken)), d256, size, broken},
		{"broken at the end", io.MultiReader(bytes.NewReader(body), iotest.ErrReader(broken)), d256, size, broken},
	} {
		got, err := io.ReadAll(registry.Verify(tt.r, tt.d, tt.size))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil && !bytes.Equal(got, body[:tt.size]) {
			t.Errorf("%s: %q", tt.name, got)
		}
	}
}

func TestVerifyBytes(t *testing.T) {
	body := []byte("x")
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		if err := registry.VerifyBytes(body, a.FromBytes(body)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		if err := registry.VerifyBytes(nil, a.FromBytes(body)); !errors.Is(err, registry.Corrupt) {
			t.Errorf("%s of other bytes: %v", a, err)
		}
	}
}
