package bench

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// warm starts every peer that is installed and has each hold what its clients ask for. Those that fail are left out.
func warm(t testing.TB, u *upstream, fill func(*peer) error) (peers []*peer) {
	t.Helper()
	for _, name := range servers() {
		p := startPeer(t, name, u)
		err := fill(p)
		if err == nil {
			peers = append(peers, p)
			continue
		}
		p.failed(t, err)
		p.stop()
	}
	return peers
}

// hold brings the content of path into p's cache, compared with body, and returns the path to ask p for. To nginx it is a
// file.
func (p *peer) hold(t testing.TB, path string, body []byte) (string, error) {
	if p.name == nginx {
		path = "/static/" + filepath.Base(path)
		if _, err := os.Stat(filepath.Join(p.dir, path)); err != nil {
			write(t, filepath.Join(p.dir, path), string(body))
		}
	}
	_, err := get(limited(t, time.Minute), client(), "http://"+p.addr+path, "", body)
	return path, err
}

// evict takes p's files out of the page cache. A file that is read from the disk is in larger pieces there than one that was
// received, and sending it takes a tenth less CPU: all get theirs in the same way.
func (p *peer) evict() error {
	return filepath.WalkDir(p.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	})
}

// perUnit runs work on every peer in turn, rounds times, and returns the medians of the CPU seconds it took each, divided by
// the units of work it did. What fails has no CPU time.
func perUnit(t testing.TB, rounds int, peers []*peer, work func(*peer) (units float64, err error)) figures {
	t.Helper()
	cpu := make(map[string][]float64)
	for range rounds {
		for _, p := range peers {
			before := p.cpu()
			units, err := work(p)
			used := (p.cpu() - before) / units
			if err != nil {
				p.failed(t, err)
				used = math.NaN()
			}
			cpu[p.name] = append(cpu[p.name], used)
		}
	}
	f := figures{}
	for name, v := range cpu {
		f[name] = median(v)
	}
	return f
}

// hotBlob sends one blob that everybody holds to 8 clients again and again.
func hotBlob(t testing.TB, c conditions) {
	u := newUpstream(t, path{})
	const clients, times = 8, 2
	n := c.scaled(256 * mib)
	d, bl := u.blob(20, n)
	paths := make(map[string]string)
	peers := warm(t, u, func(p *peer) (err error) {
		if _, err = p.hold(t, blobPath(d), bl.body); err != nil {
			return err
		}
		for range 5 { // docker-registry fails while it moves what it has just sent to its place
			time.Sleep(time.Second)
			if err = p.evict(); err != nil {
				return err
			}
			if paths[p.name], err = p.hold(t, blobPath(d), bl.body); err == nil {
				break
			}
		}
		return err
	})
	f := perUnit(t, c.rounds, peers, func(p *peer) (float64, error) {
		var g errgroup.Group
		for range clients {
			g.Go(func() error {
				conn, err := dialRaw(p.addr, paths[p.name])
				if err != nil {
					return err
				}
				defer conn.Close()
				for range times {
					n, err := conn.ask()
					if err == nil && n != d.Size {
						err = fmt.Errorf("body of %d bytes, not %d", n, d.Size)
					}
					if err == nil {
						err = conn.drain(n)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		return float64(clients*times*n) / gib, g.Wait()
	})
	for _, p := range peers { // what was drained was not looked at
		if _, err := p.hold(t, blobPath(d), bl.body); err != nil {
			p.failed(t, err)
		}
		p.stop()
	}
	c.table.add(row{fmt.Sprintf("hot blob of %s, 8 clients: CPU", size(n)), "s/GiB", f, nginx, 1.1})
	c.table.add(row{"  the same beside docker-registry", "s/GiB", f, dist, 0.25})
}

// hotManifest asks for one manifest on 8 connections.
func hotManifest(t testing.TB, c conditions) {
	u := newUpstream(t, path{})
	const clients = 8
	img := u.image(30, 64*kib, 64*kib, 64*kib, 64*kib)
	for _, ref := range []string{img.Desc.Digest.String(), tag} {
		paths := make(map[string]string)
		peers := warm(t, u, func(p *peer) (err error) {
			paths[p.name], err = p.hold(t, manifestPath(ref), img.Body)
			return err
		})
		f := perUnit(t, c.rounds, peers, func(p *peer) (float64, error) {
			calls := c.calls
			if p.name == dist { // some 80 times as long
				calls = max(1, calls/50)
			}
			var g errgroup.Group
			for range clients {
				g.Go(func() error {
					conn, err := dialRaw(p.addr, paths[p.name])
					if err != nil {
						return err
					}
					defer conn.Close()
					return conn.repeat(calls, img.Body)
				})
			}
			return float64(clients*calls) / 1e6, g.Wait()
		})
		for _, p := range peers {
			p.stop()
		}
		by := "digest"
		if ref == tag {
			by = "tag"
		}
		c.table.add(row{fmt.Sprintf("hot manifest of %d bytes by %s: CPU", len(img.Body), by), "us/request", f, nginx, 2})
	}
}
