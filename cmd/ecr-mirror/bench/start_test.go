package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// populate writes objects of one byte under cache, with their rows in meta.db.
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
	now := time.Now().UnixNano()
	for done := 0; done < objects; {
		err := db.Update(func(tx *bbolt.Tx) error {
			links, access := tx.Bucket([]byte("links")), tx.Bucket([]byte("objects"))
			if links == nil || access == nil {
				return fmt.Errorf("meta.db: not the buckets that this benchmark knows")
			}
			for end := min(done+20_000, objects); done < end; done++ {
				hex := fmt.Sprintf("%x", sha256.Sum256(fmt.Append(nil, done)))
				if err := os.WriteFile(filepath.Join(cache, "blobs", "sha256", hex[:2], hex), []byte{1}, 0o600); err != nil {
					return err
				}
				key := "sha256:" + hex
				if err := links.Put([]byte(key+"\x00blob\x00127.0.0.1\x00"+repo), []byte(`{"size":1}`)); err != nil {
					return err
				}
				row := binary.BigEndian.AppendUint64(nil, uint64(now+int64(done))) // last access and size
				if err := access.Put([]byte(key), binary.BigEndian.AppendUint64(row, 1)); err != nil {
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
