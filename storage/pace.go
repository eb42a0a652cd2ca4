package storage

import "time"

const (
	nearby     = 10 * time.Millisecond // an upstream that answers sooner gains little from parallel reads
	farStreams = 4                     // to begin with,
	nearStream = 2                     // and from nearby
	window     = 100 * time.Millisecond
	patience   = 2 * time.Second // until more streams are tried again after they did not help
	worthwhile = 1.2             // what twice the streams must bring
	maxRun     = 8 << 20         // bytes asked for at once, at most,
	runTime    = 500 * time.Millisecond
)

// pace finds how many ranged reads at once fill fastest: it doubles them while that raises the fill's throughput, goes
// back where it did not, and tries again later. It has no lock.
type pace struct {
	target  int
	most    int
	latency time.Duration // from asking to the first byte, of late
	before  float64       // bytes/s with fewer streams; 0: not measured
	fewer   int           // how many those were
	rate    float64       // bytes/s at the last look
	from    time.Time     // start of the window; in the future while new streams settle
	bytes   int64         // in the window
}

func newPace(latency time.Duration, most int, now time.Time) *pace {
	p := &pace{target: farStreams, most: most, latency: latency, fewer: 1}
	if latency < nearby {
		p.target = nearStream
	}
	p.settle(now)
	return p
}

// settle starts a window once streams that are asked for now run.
func (p *pace) settle(now time.Time) { p.bytes, p.from = 0, now.Add(p.latency+p.latency/2) }

// opened notes how long a stream's first byte took.
func (p *pace) opened(d time.Duration) { p.latency += (d - p.latency) / 4 }

// note counts n bytes that arrived with streams running, and reports whether the target rose.
func (p *pace) note(n int64, streams int, now time.Time) bool {
	if now.Before(p.from) {
		return false
	}
	p.bytes += n
	took := now.Sub(p.from)
	if took < max(window, p.latency) {
		return false
	}
	p.rate = float64(p.bytes) / took.Seconds()
	switch {
	case streams < p.target: // held back by others: nothing is learnt
		p.bytes, p.from = 0, now
		return false
	case p.rate < worthwhile*p.before:
		p.target, p.before = p.fewer, 0
		p.bytes, p.from = 0, now.Add(patience)
		return false
	case p.target >= p.most:
		p.bytes, p.from = 0, now
		return false
	}
	p.before, p.fewer = p.rate, p.target
	p.target = min(2*p.target, p.most)
	p.settle(now)
	return true
}

// back halves the streams after trouble upstream; they grow again from there.
func (p *pace) back(now time.Time) {
	p.target, p.before = max(1, p.target/2), 0
	p.fewer = max(1, p.target/2)
	p.settle(now)
}

// run is how many bytes a stream should ask for when left are missing: few enough that all streams end together and that a
// reader who needs bytes in the middle does not wait long.
func (p *pace) run(left int64) int64 {
	n := min(maxRun, left/int64(2*p.target))
	if p.rate > 0 {
		n = min(n, int64(p.rate*runTime.Seconds())/int64(p.target))
	}
	return max(segmentSize, n)
}
