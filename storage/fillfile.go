package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// A partial object is two files: NAME.data, sparse and of the object's full size, and NAME.map, which says which segments
// of it are there. A segment is marked only after an fsync of the data, so the map is never ahead of it, even after a
// power cut. The map's form, integers big-endian:
//
//	  0  8  "ecrmfill"
//	  8  4  version, 1
//	 12  4  segment size in bytes
//	 16  8  total size in bytes
//	 24  2  length of the digest
//	 26  …  digest, then zeros up to 252
//	252  4  CRC-32 (IEEE) of bytes 0 to 252
//	256  …  one bit per segment, lowest bit first
const (
	mapMagic    = "ecrmfill"
	mapVersion  = 1
	mapHeader   = 256
	segmentSize = 1 << 20
	maxSegments = 1 << 24 // of a map that is read: 2 MiB of bits, 16 TiB of data
)

type fillFile struct {
	data    *os.File
	marks   *os.File
	size    int64
	segment int64

	mu   sync.Mutex
	bits []byte
	lost bool // an fsync of the data failed
}

// errLost says that an fsync failed before. What it did not write, no later one does, though that succeeds (see durable):
// such a file may serve those who read it now, and must not outlive them.
var errLost = errors.New("an earlier fsync failed")

func segments(size, segment int64) int64 { return (size + segment - 1) / segment }

// createFillFile starts a partial object, replacing what stands under the name.
func createFillFile(name string, d digest.Digest, size int64) (f *fillFile, err error) {
	f = &fillFile{size: size, segment: segmentSize, bits: make([]byte, (segments(size, segmentSize)+7)/8)}
	defer func() {
		if err != nil {
			f.close()
			removeFillFile(name)
		}
	}()
	removeFillFile(name) // readers of an older file of this name keep theirs
	if f.data, err = os.OpenFile(name+".data", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return f, err
	}
	if err = f.data.Truncate(size); err != nil {
		return f, err
	}
	if f.marks, err = os.OpenFile(name+".map", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
		return f, err
	}
	h := make([]byte, mapHeader, mapHeader+len(f.bits))
	copy(h, mapMagic)
	binary.BigEndian.PutUint32(h[8:], mapVersion)
	binary.BigEndian.PutUint32(h[12:], uint32(f.segment))
	binary.BigEndian.PutUint64(h[16:], uint64(size))
	binary.BigEndian.PutUint16(h[24:], uint16(len(d)))
	copy(h[26:252], d)
	binary.BigEndian.PutUint32(h[252:], crc32.ChecksumIEEE(h[:252]))
	_, err = f.marks.WriteAt(append(h, f.bits...), 0)
	return f, err
}

// openFillFile opens what an interrupted fill of d left. Any error means that there is nothing to resume.
func openFillFile(name string, d digest.Digest) (f *fillFile, err error) {
	f = &fillFile{}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.marks, err = os.OpenFile(name+".map", os.O_RDWR, 0); err != nil {
		return f, err
	}
	m, err := io.ReadAll(io.LimitReader(f.marks, mapHeader+maxSegments/8+1))
	if err != nil {
		return f, err
	}
	if f.size, f.segment, f.bits, err = parseMap(m, d); err != nil {
		return f, err
	}
	if f.data, err = os.OpenFile(name+".data", os.O_RDWR, 0); err != nil {
		return f, err
	}
	if f.segment != segmentSize {
		return f, fmt.Errorf("%s.map has segments of %d bytes", name, f.segment)
	}
	info, err := f.data.Stat()
	if err == nil && info.Size() != f.size {
		err = fmt.Errorf("%s.data has %d bytes, want %d", name, info.Size(), f.size)
	}
	return f, err
}

// parseMap reads a map of d.
func parseMap(m []byte, d digest.Digest) (size, segment int64, bits []byte, err error) {
	bad := func(why string) (int64, int64, []byte, error) { return 0, 0, nil, errors.New("fill map: " + why) }
	if len(m) < mapHeader || string(m[:8]) != mapMagic {
		return bad("no header")
	}
	if crc32.ChecksumIEEE(m[:252]) != binary.BigEndian.Uint32(m[252:]) {
		return bad("checksum")
	}
	if v := binary.BigEndian.Uint32(m[8:]); v != mapVersion {
		return bad(fmt.Sprintf("version %d", v))
	}
	segment, usize := int64(binary.BigEndian.Uint32(m[12:])), binary.BigEndian.Uint64(m[16:])
	if n := int(binary.BigEndian.Uint16(m[24:])); n > 226 || string(m[26:26+n]) != d.String() {
		return bad("of another digest")
	}
	if segment == 0 || usize > maxSegments*uint64(segment) || usize > 1<<62 {
		return bad("sizes")
	}
	size, bits = int64(usize), m[mapHeader:]
	if n := segments(size, segment); int64(len(bits)) != (n+7)/8 || n > maxSegments {
		return bad("length")
	}
	return size, segment, bits, nil
}

// sync makes the data durable and then marks the segments in bits, which were there before the call.
func (f *fillFile) sync(bits []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost {
		return errLost
	}
	if err := f.data.Sync(); err != nil {
		f.lost = true
		return err
	}
	for i := range f.bits {
		f.bits[i] |= bits[i]
	}
	_, err := f.marks.WriteAt(f.bits, mapHeader)
	return err
}

// publish gives the complete file its final name through publish, unless its data may be lost.
func (f *fillFile) publish(path string, publish func(*os.File, string) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lost {
		return errLost
	}
	return publish(f.data, path)
}

func (f *fillFile) close() {
	if f.data != nil {
		f.data.Close()
	}
	if f.marks != nil {
		f.marks.Close()
	}
}

// removeFillFile removes the map first: data without a map is dropped at the next start.
func removeFillFile(name string) {
	os.Remove(name + ".map")
	os.Remove(name + ".data")
}
