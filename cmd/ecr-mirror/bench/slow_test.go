package bench

import (
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// slowReaders has 200 clients read a blob slowly and looks at the memory of the server.
func slowReaders(t testing.TB, c conditions) {
	u := newUpstream(t, path{})
	const readers, rate = 200, 50 * kib
	n := c.scaled(64 * mib)
	hot, hotBody := u.blob(40, n)
	cold, coldBody := u.blob(41, n)
	held, filling := figures{}, figures{}
	measure := func(p *peer, path string, body []byte) (float64, error) {
		p.stop()
		p.start(t) // its peak so far was the fill's
		idle := p.memory("VmRSS")
		stop := make(chan struct{})
		var g errgroup.Group
		for range readers {
			g.Go(func() error {
				conn, err := dialRaw(p.addr, path)
				if err != nil {
					return err
				}
				defer conn.Close()
				if err := conn.SetReadBuffer(64 * kib); err != nil {
					return err
				}
				if _, err := conn.ask(); err != nil {
					return err
				}
				return conn.trickle(rate, body, stop)
			})
		}
		time.Sleep(c.watch)
		most := p.memory("VmHWM")
		close(stop)
		return most - idle, g.Wait()
	}
	each(t, u, func(p *peer) error {
		path, err := p.hold(t, blobPath(hot), hotBody.body)
		if err != nil {
			return err
		}
		if held[p.name], err = measure(p, path, hotBody.body); err != nil {
			return err
		}
		filling[p.name], err = measure(p, blobPath(cold), coldBody.body)
		return err
	}, held, filling)
	c.table.add(row{"200 slow readers of a hot blob: memory above idle", "MiB", held, "", 64})
	c.table.add(row{"200 slow readers of a blob that is being filled: the same", "MiB", filling, "", 64})
}
