package registry

import (
	_ "crypto/sha256" // digests that go-digest can verify are those whose hash is linked
	_ "crypto/sha512"
	"io"

	"github.com/opencontainers/go-digest"
)

// Verify returns a reader of r that ends with io.EOF only if r held exactly size bytes whose digest is d; else it ends with
// an error of class Corrupt. Bytes are given out before they are verified: the reader's end is the verdict.
func Verify(r io.Reader, d digest.Digest, size int64) io.Reader {
	return &verifier{r: io.LimitReader(r, size+1), d: d, left: size, v: d.Verifier()}
}

type verifier struct {
	r    io.Reader
	d    digest.Digest
	left int64
	v    digest.Verifier
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if v.left -= int64(n); v.left < 0 {
		return 0, Errorf(Corrupt, "verify %s: longer than its descriptor says", v.d)
	}
	v.v.Write(p[:n])
	if err == io.EOF {
		if v.left > 0 {
			return n, Errorf(Corrupt, "verify %s: ended %d bytes early", v.d, v.left)
		}
		if !v.v.Verified() {
			return n, Errorf(Corrupt, "verify %s: bytes have another digest", v.d)
		}
	}
	return n, err
}

// VerifyBytes returns an error of class Corrupt unless body has digest d.
func VerifyBytes(body []byte, d digest.Digest) error {
	if got := d.Algorithm().FromBytes(body); got != d {
		return Errorf(Corrupt, "verify %s: got %s", d, got)
	}
	return nil
}
