package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// start starts with a cache of many objects, linked and used as they are after a year of service. Their content does not
// matter: it is not read.
func start(t testing.TB, c conditions) {
	u := newUpstream(t, path{})
	p := startPeer(t, ours, u) // makes the directory and the database
	p.stop()
	cache := filepath.Join(p.dir, "cache")
	if err := populate(cache, c.objects); err != nil {
		t.Fatal(err)
	}
	find := func() float64 {
		begin := time.Now()
		out, err := exec.Command("sh", "-c", `find "$0" -type f | wc -l`, filepath.Join(cache, "blobs")).Output()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := strconv.Atoi(string(out[:len(out)-1])); err != nil || n != c.objects {
			t.Fatalf("find: %s objects, not %d", out, c.objects)
		}
		return time.Since(begin).Seconds()
	}
	find() // the directories are in memory from here on, for both
	ready, listed := []float64{}, []float64{}
	for range min(c.rounds, 3) {
		listed = append(listed, find())
		begin := time.Now()
		p.start(t)
		ready = append(ready, time.Since(begin).Seconds())
		p.stop()
	}
	what := fmt.Sprintf("start with %d objects until the first answer", c.objects)
	c.table.add(row{what, "s", figures{ours: median(ready), "find": median(listed)}, "find", 2})
}

// populate writes objects of one byte under cache, with their rows in meta.db. Many are links to one file, ext4 allows 65,000:
// files of their own take minutes to write and to remove, and who lists them finds their inodes in memory all the same.
func populate(cache string, objects int) error {
	db, err := bbolt.Open(filepath.Join(cache, "meta.db"), 0o600, &bbolt.Options{Timeout: 5 * time.Second, NoSync: true})
	if err != nil {
		return err
	}
	defer db.Close()
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(cache, "blobs", "sha256", fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return err
		}
	}
	const year = uint64(53 * 365 * 24 * time.Hour) // 2022, in nanoseconds
	names := make([]string, objects)
	for i := range names {
		names[i] = fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, i)))
	}
	slices.Sort(names) // in any other order the database is written many times over
	var last string
	file := func(i int, path string) error {
		if i > 0 {
			return os.Link(last, path)
		}
		last = path
		return os.WriteFile(path, []byte{1}, 0o600)
	}
	for batch := range slices.Chunk(names, 50_000) {
		err := db.Update(func(tx *bbolt.Tx) error {
			links, objects := tx.Bucket([]byte("links")), tx.Bucket([]byte("objects"))
			if links == nil || objects == nil {
				return errors.New("meta.db: not the buckets that this benchmark knows")
			}
			for i, hex := range batch {
				key := "sha256:" + hex
				used := year + rand.Uint64N(year>>5)                                              // in no order
				row := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, used), 1) // last access and size
				err := errors.Join(
					file(i, filepath.Join(cache, "blobs", "sha256", hex[:2], hex)),
					links.Put([]byte(key+"\x00blob\x00127.0.0.1\x00"+repo), []byte(`{"size":1}`)),
					objects.Put([]byte(key), row))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.Sync()
}
