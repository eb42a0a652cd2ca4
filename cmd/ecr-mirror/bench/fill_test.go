package bench

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// plainLoopArg has TestMain run plainLoop.
const plainLoopArg = "plain-loop"

// plainLoop is what fills cannot do without: receive, write, hash. It runs as a process of its own.
func plainLoop(dir string, urls []string) error {
	for _, url := range urls {
		if err := plainFill(url, filepath.Join(dir, filepath.Base(url))); err != nil {
			return err
		}
	}
	return nil
}

func plainFill(url, file string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	h := sha256.New()
	buf := make([]byte, 256*kib)
	for {
		n, err := resp.Body.Read(buf)
		if _, err := f.Write(buf[:n]); err != nil {
			return err
		}
		h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if want := filepath.Base(resp.Request.URL.Path); digest.NewDigest(digest.SHA256, h).String() != want {
		return fmt.Errorf("%s: wrong bytes", want)
	}
	return f.Close()
}

// fillCPU brings blobs into the cache, one after the other. Their client leaves as soon as it has the first bytes, so that
// sending costs nothing; docker-registry, which gives up then, and nginx have theirs stay.
func fillCPU(t testing.TB, c conditions) {
	u := newUpstream(t, path{})
	const blobs = 8
	n := c.scaled(128 * mib)
	var descs []registry.Descriptor
	var urls []string
	for i := range blobs {
		d, _ := u.blob(50+uint64(i), n)
		descs = append(descs, d)
		urls = append(urls, "http://"+u.host+blobPath(d))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	perGiB := func(s float64) float64 { return s / (float64(blobs*n) / gib) }
	cpu := make(map[string][]float64)
	for range min(c.rounds, 3) {
		dir := tempDir(t)
		cmd := exec.Command(self, append([]string{plainLoopArg, dir}, urls...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("plain loop: %v\n%s", err, out)
		}
		_ = os.RemoveAll(dir) // scratch goes at the end in any case
		cpu["plain loop"] = append(cpu["plain loop"], perGiB((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()))
		each(t, u, func(p *peer) error {
			before := p.cpu()
			for _, d := range descs {
				if err := p.fill(d); err != nil {
					return err
				}
			}
			cpu[p.name] = append(cpu[p.name], perGiB(p.cpu()-before))
			return nil
		})
	}
	f := figures{}
	for name, v := range cpu {
		f[name] = median(v)
	}
	c.table.add(row{fmt.Sprintf("fill of %d x %s: CPU", blobs, size(n)), "s/GiB", f, "plain loop", 1.15})
}

// fill has p fetch d and returns once that is done.
func (p *peer) fill(d registry.Descriptor) error {
	c, err := dialRaw(p.addr, blobPath(d))
	if err != nil {
		return err
	}
	defer c.Close()
	size, err := c.ask()
	if err != nil {
		return err
	}
	if size != d.Size {
		return fmt.Errorf("body of %d bytes, not %d", size, d.Size)
	}
	if p.name != ours {
		return c.drain(size)
	}
	c.Close()
	object := filepath.Join(p.dir, "cache", "blobs", "sha256", d.Digest.Encoded()[:2], d.Digest.Encoded())
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(object); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s is not filled a minute after its client left", d.Digest)
}
