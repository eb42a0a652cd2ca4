package storage

import "time"

const (
	nearby   = 10 * time.Millisecond // an upstream that answers sooner gains little from parallel reads
	far      = 40 * time.Millisecond // one that answers later loses much while they are being tried
	window   = 100 * time.Millisecond
	patience = 2 * time.Second // until more streams are tried again after they did not help
	maxRun   = 8 << 20         // bytes asked for at once, at most,
	runTime  = 500 * time.Millisecond

	nearStreams, midStreams, farStreams = 2, 4, 8 // to begin with
	worthwhile                          = 1.2     // what twice the streams must bring
)

// pace finds how many ranged reads at once fill fastest: it doubles them while that raises the fill's throughput, goes
// back where it did not, and tries again later. It has no lock.
type pace struct {
	target  int
	most    int
	latency time.Duration // from asking to the first byte; that of a new connection is longer
	before  float64       // bytes/s with fewer streams; 0: not measured
	fewer   int           // how many those were
	rate    float64       // bytes/s at the last look
	asked   time.Time     // when the streams that still have to come were asked for
	from    time.Time     // start of the window; zero while they come
	bytes   int64         // in the window
}

// newPace begins with what an upstream that took latency to answer suggests.
func newPace(latency time.Duration, most int, now time.Time) *pace {
	p := &pace{target: midStreams, most: most, latency: latency, fewer: 1, asked: now}
	switch {
	case latency < nearby:
		p.target = nearStreams
	case latency >= far:
		p.target = farStreams
	}
	p.target = min(p.target, most)
	return p
}

// settle has the next window start once streams that are asked for now run.
func (p *pace) settle(now time.Time) { p.asked, p.from = now, time.Time{} }

// opened notes how long a stream's first byte took. The shortest time counts most: others had a connection to make.
func (p *pace) opened(d time.Duration) {
	if d < p.latency {
		p.latency = d
	} else {
		p.latency += (d - p.latency) / 8
	}
}

// note counts n bytes that arrived with streams running, and reports whether the target rose.
func (p *pace) note(n int64, streams int, now time.Time) bool {
	if p.from.IsZero() {
		if now.Sub(p.asked) < 2*p.latency {
			return false
		}
		p.bytes, p.from = 0, now
		return false
	}
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
