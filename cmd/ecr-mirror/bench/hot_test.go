package bench

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// rounds of each server, in turn, of which the median counts: what else the machine does changes with time.
const rounds = 5

// warm starts every peer that is installed and has each hold what its clients ask for. nginx gets its content as files.
func warm(b *testing.B, u *upstream, fill func(*peer) error) (peers []*peer) {
	b.Helper()
	for _, name := range []string{ours, dist, nginx} {
		if !installed(name) {
			continue
		}
		p := startPeer(b, name, u)
		if err := fill(p); err != nil {
			b.Fatalf("%s: %v\n%s", name, err, p.output())
		}
		peers = append(peers, p)
	}
	return peers
}

func stopAll(peers []*peer) {
	for _, p := range peers {
		p.stop()
	}
}

// hotPath is where p serves d from: the registry's path, or nginx's file.
func (p *peer) hotPath(d registry.Descriptor) string {
	if p.name == nginx {
		return "/static/" + d.Digest.Encoded()
	}
	return "/v2/" + repo + "/blobs/" + d.Digest.String()
}

// hold brings a blob into p's cache, verified, and for nginx writes the file.
func (p *peer) hold(b *testing.B, d registry.Descriptor, body []byte) error {
	if p.name == nginx {
		write(b, filepath.Join(p.dir, p.hotPath(d)), string(body))
	}
	_, err := get(limited(b, time.Minute), client(), "http://"+p.addr+p.hotPath(d), "", d.Digest)
	return err
}

// BenchmarkHotBlob sends one blob that everybody holds to 8 clients again and again.
func BenchmarkHotBlob(b *testing.B) {
	u := newUpstream(b, path{})
	const clients, times = 8, 2
	n := scaled(b, 256*mib)
	d, bl := u.blob(20, n)
	peers := warm(b, u, func(p *peer) error { return p.hold(b, d, bl.body) })
	defer stopAll(peers)
	time.Sleep(time.Second) // what a fill leaves to be done
	cpu := make(map[string][]float64)
	for range rounds {
		for _, p := range peers {
			before := p.cpu()
			var g errgroup.Group
			for range clients {
				g.Go(func() error {
					c, err := dialRaw(p.addr, p.hotPath(d))
					if err != nil {
						return err
					}
					defer c.Close()
					for range times {
						n, err := c.ask()
						if err == nil && n != d.Size {
							err = fmt.Errorf("body of %d bytes, not %d", n, d.Size)
						}
						if err == nil {
							err = c.drain(n)
						}
						if err != nil {
							return err
						}
					}
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				b.Fatalf("%s: %v", p.name, err)
			}
			cpu[p.name] = append(cpu[p.name], (p.cpu()-before)/(float64(clients*times*n)/gib))
		}
	}
	f := figures{}
	for name, v := range cpu {
		f[name] = median(v)
	}
	results.add(row{fmt.Sprintf("hot blob of %d MiB, 8 clients: CPU", n/mib), "s/GiB", f, nginx, 1.1})
	results.add(row{"  the same beside docker-registry", "s/GiB", f, dist, 0.25})
}

// BenchmarkHotManifest asks 8 connections' worth of times for one manifest.
func BenchmarkHotManifest(b *testing.B) {
	u := newUpstream(b, path{})
	const clients, times = 8, 2500
	img := u.image(30, 64*kib, 64*kib, 64*kib, 64*kib)
	static := func(p *peer, ref string) string {
		if p.name == nginx {
			return "/static/manifest"
		}
		return "/v2/" + repo + "/manifests/" + ref
	}
	peers := warm(b, u, func(p *peer) error {
		write(b, filepath.Join(p.dir, "static", "manifest"), string(img.Body))
		_, err := get(limited(b, time.Minute), client(), "http://"+p.addr+static(p, tag), "", img.Desc.Digest)
		return err
	})
	defer stopAll(peers)
	for _, ref := range []string{img.Desc.Digest.String(), tag} {
		cpu := make(map[string][]float64)
		for range rounds {
			for _, p := range peers {
				before := p.cpu()
				var g errgroup.Group
				for range clients {
					g.Go(func() error {
						c, err := dialRaw(p.addr, static(p, ref))
						if err != nil {
							return err
						}
						defer c.Close()
						return c.repeat(times)
					})
				}
				if err := g.Wait(); err != nil {
					b.Fatalf("%s: %v", p.name, err)
				}
				cpu[p.name] = append(cpu[p.name], (p.cpu()-before)*1e6/(clients*times))
			}
		}
		f := figures{}
		for name, v := range cpu {
			f[name] = median(v)
		}
		what := "hot manifest by digest: CPU"
		if ref == tag {
			what = "hot manifest by tag: CPU"
		}
		results.add(row{what, "us/request", f, nginx, 2})
	}
}

// BenchmarkSlowReaders has 200 clients read a blob slowly and looks at the memory of the server.
func BenchmarkSlowReaders(b *testing.B) {
	u := newUpstream(b, path{})
	const readers, rate = 200, 50 * kib
	n := scaled(b, 64*mib)
	d, bl := u.blob(40, n)
	cold, _ := u.blob(41, n)
	grown, filling := figures{}, figures{}
	measure := func(p *peer, path string, f figures) error {
		f[p.name] = math.NaN()
		p.stop()
		p.start(b) // its peak so far was the fill's
		if p.name != nginx {
			if c, err := dialRaw(p.addr, "/v2/"); err == nil {
				_, _ = c.ask() // the idle server has seen a client
				c.Close()
			}
		}
		idle := p.memory("VmRSS")
		stop := make(chan struct{})
		var g errgroup.Group
		for range readers {
			g.Go(func() error {
				c, err := dialRaw(p.addr, path)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.SetReadBuffer(64 * kib); err != nil {
					return err
				}
				if _, err := c.ask(); err != nil {
					return err
				}
				return c.trickle(rate, stop)
			})
		}
		time.Sleep(4 * time.Second)
		most := p.memory("VmHWM")
		close(stop)
		err := g.Wait()
		if err == nil {
			f[p.name] = most - idle
		}
		return err
	}
	each(b, u, func(p *peer) error {
		if err := p.hold(b, d, bl.body); err != nil {
			return err
		}
		if err := measure(p, p.hotPath(d), grown); err != nil {
			return err
		}
		return measure(p, "/v2/"+repo+"/blobs/"+cold.Digest.String(), filling)
	})
	results.add(row{"200 slow readers of a hot blob: memory above idle", "MiB", grown, "", 64})
	results.add(row{"200 slow readers of a blob that is being filled: the same", "MiB", filling, "", 64})
}
