package bench

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// faults breaks a blob's stream in its middle: is the client's one pull right all the same?
func faults(t testing.TB, c conditions) {
	n := c.scaled(32 * mib)
	failed := make([]figures, len(c.faults))
	for i := range failed {
		failed[i] = figures{}
	}
	var mu sync.Mutex
	var g errgroup.Group
	for _, name := range servers() { // all at once: nothing is timed
		u := newUpstream(t, path{latency: 5 * time.Millisecond, rate: 100e6})
		p := startPeer(t, name, u)
		defer p.stop()
		ctx := limited(t, 40*time.Second)
		for i, f := range c.faults {
			d, bl := u.blob(10+uint64(i), n)
			bl.fail(f)
			g.Go(func() error {
				cl := client()
				defer cl.CloseIdleConnections()
				_, err := get(ctx, cl, "http://"+p.addr+blobPath(d), "", bl.body)
				mu.Lock()
				defer mu.Unlock()
				failed[i][name] = 0
				if err != nil {
					failed[i][name] = 1
					p.failed(t, fmt.Errorf("%s: %w", f, err))
				}
				return nil
			})
		}
	}
	_ = g.Wait() // it is in failed
	for i, f := range c.faults {
		c.table.add(row{"layer host in mid-blob: " + string(f), "failed pulls", failed[i], "", 0})
	}
}
