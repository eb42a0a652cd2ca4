package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// roundRobin is the column of what nginx does without hashing.
const roundRobin = "round robin"

// manyReplicas has clients pull one image, which nobody holds, through three replicas behind nginx: with the configuration that
// deploy/nginx delivers, and with the same without its hash, where each request goes to the next replica.
func manyReplicas(t testing.TB, c conditions) {
	if !installed(nginx) { // nobody to stand before them
		return
	}
	const count, clients, layers = 3, 24, 16
	n := c.scaled(8 * mib)
	f := map[string]figures{}
	for _, what := range []string{"bytes", "manifests", "time", "lost"} {
		f[what] = figures{}
	}
	for _, way := range []string{ours, roundRobin} {
		u := newUpstream(t, c.wan)
		sizes := make([]int, layers)
		total := 0
		for i := range sizes {
			sizes[i] = n
		}
		img := u.image(60, sizes...)
		for _, b := range img.Blobs {
			total += len(b.Body)
		}
		behind := make([]*peer, count)
		for i := range behind {
			behind[i] = startPeer(t, ours, u)
		}
		lb := startBalancer(t, behind, way == ours)
		u.read.Store(0)
		begin := time.Now()
		if err := pullAll(t, clients, lb.addr, img); err != nil {
			t.Errorf("%s: %v", way, err)
		}
		f["time"][way] = time.Since(begin).Seconds()
		f["bytes"][way] = float64(u.sent()) / float64(total)
		f["manifests"][way] = float64(u.read.Load())

		behind[0].stop() // warm: what it held is read by the others
		if err := pullAll(t, clients, lb.addr, img); err != nil {
			t.Errorf("%s, a replica is lost: %v", way, err)
		}
		f["lost"][way] = float64(u.sent()) / float64(total)
		for _, p := range append(behind, lb) {
			p.stop()
		}
	}
	c.table.add(row{fmt.Sprintf("%d replicas, %d clients, cold image %d x %s: upstream bytes", count, clients, layers, size(n)), "x image", f["bytes"], roundRobin, .5})
	c.table.add(row{"  the same: manifests read upstream", "times", f["manifests"], roundRobin, 1})
	c.table.add(row{"  the same: last one done", "s", f["time"], roundRobin, 1})
	c.table.add(row{"  then one of them is stopped: upstream bytes of the next pulls", "x image", f["lost"], "", .75})
}

// pullAll has clients pull an image at once.
func pullAll(t testing.TB, clients int, addr string, img registrytest.Node) error {
	g, ctx := errgroup.WithContext(limited(t, 2*time.Minute))
	for range clients {
		g.Go(func() error {
			_, err := pull(ctx, addr, img)
			return err
		})
	}
	return g.Wait()
}

// startBalancer starts nginx before replicas, with the delivered configuration: with its hash, or without.
func startBalancer(t testing.TB, replicas []*peer, hashed bool) *peer {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join("..", "..", "..", "deploy", "nginx", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const hash = "    hash $shard consistent;\n"
	text := string(conf)
	if !hashed {
		text = strings.Replace(text, hash, "", 1)
		if text == string(conf) {
			t.Fatalf("nginx.conf has no %q", hash)
		}
	}
	p := &peer{name: nginx, addr: ownAddr(), dir: tempDir(t)}
	servers := ""
	for _, r := range replicas {
		servers += "server " + r.addr + " max_fails=3 fail_timeout=10s;\n"
	}
	file := filepath.Join(p.dir, "nginx.conf")
	write(t, file, text)
	write(t, filepath.Join(p.dir, "replicas.conf"), servers)
	write(t, filepath.Join(p.dir, "listen.conf"), "listen "+p.addr+" backlog=4096;\n")
	binary, err := exec.LookPath(nginx)
	if err != nil {
		t.Fatal(err)
	}
	p.args = []string{binary, "-c", file, "-e", filepath.Join(p.dir, "error.log"), "-g", "daemon off; pid " + filepath.Join(p.dir, "pid") + ";"}
	p.start(t)
	return p
}
