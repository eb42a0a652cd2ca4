package bench

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// limited bounds one download of one peer.
func limited(b *testing.B, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.Context(), d)
	b.Cleanup(cancel)
	return ctx
}

// BenchmarkColdImage pulls an image that nobody has yet over a long path.
func BenchmarkColdImage(b *testing.B) {
	u := newUpstream(b, wan)
	n := scaled(b, 64*mib)
	img := u.image(1, n, n, n, n)
	wall, bytes := figures{}, figures{}
	t, err := pull(limited(b, time.Minute), "http://"+u.host+"/v2/"+repo, img)
	if err != nil {
		b.Fatal("direct:", err)
	}
	wall["direct"] = t.Seconds()
	bytes["direct"] = float64(u.sent())
	each(b, u, func(p *peer) error {
		t, err := pull(limited(b, 2*time.Minute), "http://"+p.addr+"/v2/"+repo, img)
		wall[p.name], bytes[p.name] = t.Seconds(), float64(u.sent())/bytes["direct"]
		if err != nil {
			wall[p.name], bytes[p.name] = math.NaN(), math.NaN()
		}
		return err
	})
	delete(bytes, "direct")
	what := fmt.Sprintf("cold image 4 x %d MiB, 80 ms, 20 MB/s a connection", n/mib)
	results.add(row{what, "s", wall, "direct", 0.4})
	results.add(row{"cold image: upstream bytes", "x image", bytes, "", 1.001})
}

// BenchmarkColdCrowd has 64 clients ask for one blob that nobody has yet.
func BenchmarkColdCrowd(b *testing.B) {
	u := newUpstream(b, wan)
	const clients = 64
	n := scaled(b, 64*mib)
	d, _ := u.blob(2, n)
	bytes, last, first := figures{}, figures{}, figures{}
	direct, err := get(limited(b, time.Minute), client(), "http://"+u.host+"/v2/"+repo+"/blobs/"+d.Digest.String(), "", d.Digest)
	if err != nil {
		b.Fatal("direct:", err)
	}
	each(b, u, func(p *peer) error {
		ctx := limited(b, 3*time.Minute)
		bytes[p.name], last[p.name], first[p.name] = math.NaN(), math.NaN(), math.NaN()
		ttfb, all, err := crowd(ctx, clients, p.blobURL(d.Digest.String()), d.Digest)
		if err != nil {
			return err
		}
		bytes[p.name] = float64(u.sent()) / float64(n)
		last[p.name] = all.Seconds()
		first[p.name] = float64((ttfb - direct.first).Milliseconds())
		if p.name != ours {
			return nil
		}
		_, warm, err := crowd(ctx, clients, p.blobURL(d.Digest.String()), d.Digest)
		last["slower of direct, cached"] = max(direct.all, warm).Seconds()
		return err
	})
	results.add(row{fmt.Sprintf("64 clients, one cold blob of %d MiB: upstream bytes", n/mib), "x blob", bytes, "", 1.001})
	results.add(row{"64 clients: last one done", "s", last, "slower of direct, cached", 1.2})
	results.add(row{"64 clients: median first byte, later than direct", "ms", first, "", 100})
}

// BenchmarkColdRanges asks for a cold blob as containerd's parallel fetch does: 20 closed ranges of 16 MiB, the last first.
func BenchmarkColdRanges(b *testing.B) {
	u := newUpstream(b, wan)
	const parts = 20
	n := scaled(b, 16*mib)
	d, _ := u.blob(3, parts*n)
	refused, bytes, tail, all := figures{}, figures{}, figures{}, figures{}
	direct, err := get(limited(b, time.Minute), client(), "http://"+u.host+"/v2/"+repo+"/blobs/"+d.Digest.String(), fmt.Sprintf("bytes=%d-", (parts-1)*n), "")
	if err != nil {
		b.Fatal("direct:", err)
	}
	each(b, u, func(p *peer) error {
		refused[p.name], bytes[p.name], tail[p.name] = math.NaN(), math.NaN(), math.NaN()
		g, ctx := errgroup.WithContext(limited(b, 2*time.Minute))
		got := make([]got, parts)
		begin := time.Now()
		for i := parts - 1; i >= 0; i-- {
			g.Go(func() (err error) {
				c := client()
				defer c.CloseIdleConnections()
				got[i], err = get(ctx, c, p.blobURL(d.Digest.String()), fmt.Sprintf("bytes=%d-%d", i*n, (i+1)*n-1), "")
				return err
			})
			time.Sleep(time.Millisecond) // keeps them in order
		}
		if err := g.Wait(); err != nil {
			return err
		}
		all[p.name] = time.Since(begin).Seconds()
		wrong := 0
		for _, r := range got {
			if r.status != http.StatusPartialContent || r.bytes != int64(n) {
				wrong++
			}
		}
		refused[p.name] = float64(wrong)
		if wrong > 0 {
			delete(tail, p.name)
			delete(bytes, p.name)
			delete(all, p.name)
			return nil
		}
		tail[p.name] = float64((got[parts-1].first - direct.first).Milliseconds())
		bytes[p.name] = float64(u.sent()) / float64(parts*n)
		return nil
	})
	all["one stream's time"] = float64(parts*n)/float64(wan.rate) + 0.4
	results.add(row{fmt.Sprintf("20 x %d MiB cold ranges, tail first: not 206", n/mib), "ranges", refused, "", 0})
	results.add(row{"20 cold ranges: upstream bytes", "x blob", bytes, "", 1.05})
	results.add(row{"20 cold ranges: tail's first byte, later than direct", "ms", tail, "", 100})
	results.add(row{"20 cold ranges: all done", "s", all, "one stream's time", 1})
}

// BenchmarkFaults breaks a blob's stream in its middle: is the client's one pull right all the same?
func BenchmarkFaults(b *testing.B) {
	faults := []fault{reset, stall, expired, burst503, burst429}
	n := scaled(b, 32*mib)
	failed := make([]figures, len(faults))
	for i := range faults {
		failed[i] = figures{}
	}
	var mu sync.Mutex
	var g errgroup.Group
	for _, name := range []string{ours, dist, nginx} { // all at once: nothing is timed
		if !installed(name) {
			continue
		}
		u := newUpstream(b, path{latency: 5 * time.Millisecond, rate: 100e6})
		p := startPeer(b, name, u)
		defer p.stop()
		ctx := limited(b, 40*time.Second)
		for i, f := range faults {
			d, bl := u.blob(10+uint64(i), n)
			bl.fail(f)
			g.Go(func() error {
				_, err := get(ctx, client(), p.blobURL(d.Digest.String()), "", d.Digest)
				mu.Lock()
				defer mu.Unlock()
				failed[i][name] = 0
				if err != nil {
					failed[i][name] = 1
					b.Logf("%s, %s: %v", name, f, err)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // it is in failed
	for i, f := range faults {
		results.add(row{"layer host in mid-blob: " + string(f), "failed pulls", failed[i], "", 0})
	}
}
