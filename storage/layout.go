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

// shards are the beginnings of digests that share a directory: algorithm, colon, two digits.
func shards() (prefixes []string) {
	for _, a := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
		for i := range 256 {
			prefixes = append(prefixes, fmt.Sprintf("%s:%02x", a, i))
		}
	}
	return prefixes
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
