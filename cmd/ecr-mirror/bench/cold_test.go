package bench

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// limited bounds one download of one peer.
func limited(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// coldImage pulls an image that nobody has yet over a long path.
func coldImage(t testing.TB, c conditions) {
	u := newUpstream(t, c.wan)
	n := c.scaled(64 * mib)
	img := u.image(1, n, n, n, n)
	wall, bytes := figures{}, figures{}
	direct, err := pull(limited(t, time.Minute), u.host, img)
	if err != nil {
		t.Fatal("direct:", err)
	}
	wall["direct"] = direct.Seconds()
	whole := float64(u.sent())
	each(t, u, func(p *peer) error {
		d, err := pull(limited(t, 2*time.Minute), p.addr, img)
		wall[p.name], bytes[p.name] = d.Seconds(), float64(u.sent())/whole
		return err
	}, wall, bytes)
	what := fmt.Sprintf("cold image 4 x %s, 80 ms, 20 MB/s a connection", size(n))
	c.table.add(row{what, "s", wall, "direct", 0.4})
	c.table.add(row{"cold image: upstream bytes", "x image", bytes, "", 1.001})
}

// coldCrowd has 64 clients ask for one blob that nobody has yet.
func coldCrowd(t testing.TB, c conditions) {
	u := newUpstream(t, c.wan)
	const clients = 64
	n := c.scaled(64 * mib)
	d, bl := u.blob(2, n)
	bytes, last, first := figures{}, figures{}, figures{}
	direct, err := get(limited(t, time.Minute), client(), "http://"+u.host+blobPath(d), "", bl.body)
	if err != nil {
		t.Fatal("direct:", err)
	}
	each(t, u, func(p *peer) error {
		ctx := limited(t, 3*time.Minute)
		url := "http://" + p.addr + blobPath(d)
		ttfb, all, err := crowd(ctx, clients, url, bl.body)
		if err != nil {
			return err
		}
		bytes[p.name] = float64(u.sent()) / float64(n)
		last[p.name] = all.Seconds()
		first[p.name] = float64((ttfb - direct.first).Milliseconds())
		if p.name != ours {
			return nil
		}
		_, warm, err := crowd(ctx, clients, url, bl.body)
		last["slower of direct, cached"] = max(direct.all, warm).Seconds()
		return err
	}, bytes, last, first)
	c.table.add(row{fmt.Sprintf("64 clients, one cold blob of %s: upstream bytes", size(n)), "x blob", bytes, "", 1.001})
	c.table.add(row{"64 clients: last one done", "s", last, "slower of direct, cached", 1.2})
	c.table.add(row{"64 clients: median first byte, later than direct", "ms", first, "", 100})
}

// coldRanges asks for a cold blob as containerd's parallel fetch does: 20 closed ranges of 16 MiB, the last first.
func coldRanges(t testing.TB, c conditions) {
	u := newUpstream(t, c.wan)
	const parts = 20
	n := c.scaled(16 * mib)
	d, bl := u.blob(3, parts*n)
	fetch := func(ctx context.Context, addr string, i int) (got, error) {
		cl := client()
		defer cl.CloseIdleConnections()
		return get(ctx, cl, "http://"+addr+blobPath(d), fmt.Sprintf("bytes=%d-%d", i*n, (i+1)*n-1), bl.body[i*n:(i+1)*n])
	}
	direct, err := fetch(limited(t, time.Minute), u.host, parts-1)
	if err != nil {
		t.Fatal("direct:", err)
	}
	refused, bytes, tail, all := figures{}, figures{}, figures{}, figures{}
	each(t, u, func(p *peer) error {
		g, ctx := errgroup.WithContext(limited(t, 2*time.Minute))
		got := make([]got, parts)
		begin := time.Now()
		for i := parts - 1; i >= 0; i-- {
			g.Go(func() (err error) {
				got[i], err = fetch(ctx, p.addr, i)
				return err
			})
			if i == parts-1 {
				time.Sleep(20 * time.Millisecond) // the tail is what is asked for first, on a busy machine as well
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
		wrong := 0.
		for _, r := range got {
			if r.status != http.StatusPartialContent {
				wrong++
			}
		}
		refused[p.name] = wrong
		if wrong > 0 { // its other figures are of something else
			if p.name == ours {
				return fmt.Errorf("%v answers are not 206", wrong)
			}
			return nil
		}
		all[p.name] = time.Since(begin).Seconds()
		tail[p.name] = float64((got[parts-1].first - direct.first).Milliseconds())
		bytes[p.name] = float64(u.sent()) / float64(parts*n)
		return nil
	}, refused, bytes, tail, all)
	all["one stream's time"] = float64(parts*n)/float64(c.wan.rate) + 4*c.wan.latency.Seconds()
	c.table.add(row{fmt.Sprintf("20 x %s cold ranges, tail first: not 206", size(n)), "ranges", refused, "", 0})
	c.table.add(row{"20 cold ranges: upstream bytes", "x blob", bytes, "", 1.05})
	c.table.add(row{"20 cold ranges: tail's first byte, later than direct", "ms", tail, "", 100})
	c.table.add(row{"20 cold ranges: all done", "s", all, "one stream's time", 1})
}
