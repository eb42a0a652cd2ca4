package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// layout is the directory of a store: what stands where in it.
type layout struct{ root string }

// blobPath is where a complete object stands. d has been validated, so it holds no separator but its colon.
func (l layout) blobPath(d digest.Digest) string {
	return filepath.Join(l.root, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

// fillName is the name of d's partial object, without .data or .map.
func (l layout) fillName(d digest.Digest) string {
	return filepath.Join(l.root, "fills", d.Algorithm().String()+"-"+d.Encoded())
}

// parseFillName is the reverse of fillName, without the directory.
func parseFillName(name string) (digest.Digest, error) {
	algorithm, encoded, _ := strings.Cut(name, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	return d, d.Validate()
}

// blobsDir is where the objects stand whose digests begin with algorithm and digits.
func (l layout) blobsDir(algorithm, digits string) string {
	return filepath.Join(l.root, "blobs", algorithm, digits)
}

func algorithms() []string {
	return []string{digest.SHA256.String(), digest.SHA384.String(), digest.SHA512.String()}
}

// shards are what the digests of a directory begin with, after the algorithm.
func shards() (digits []string) {
	for i := range 256 {
		digits = append(digits, fmt.Sprintf("%02x", i))
	}
	return digits
}

// fileNames lists a directory, in no order; one that does not exist is empty.
func fileNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
