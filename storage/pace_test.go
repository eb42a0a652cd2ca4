package storage

import (
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// network is a path as pace sees it: streams that wait for latency before each run, then share what all may have.
type network struct {
	latency     time.Duration
	each, total float64 // bytes/s of one stream, and of all together
}

// fill has p pace a fill for long, and returns how many bytes it brought and the highest number of streams.
func (n network) fill(p *pace, now time.Time, long time.Duration) (bytes int64, peak int) {
	const tick = 10 * time.Millisecond
	streams := 1
	joining := map[time.Time]int{} // by when their first byte arrives
	for end := now.Add(long); now.Before(end); now = now.Add(tick) {
		streams += joining[now]
		delete(joining, now)
		coming := 0
		for _, k := range joining {
			coming += k
		}
		if more := p.target - streams - coming; more > 0 {
			joining[now.Add(n.latency.Truncate(tick)+tick)] += more
		} else if streams > p.target {
			streams = p.target // those too many end with their run
		}
		got := int64(min(n.each*float64(streams), n.total) * tick.Seconds())
		bytes += got
		p.note(got, streams+coming, now)
		peak = max(peak, p.target)
	}
	return bytes, peak
}

// TestPace shows that many streams are used where they help, and few where they do not.
func TestPace(t *testing.T) {
	for name, tt := range map[string]struct {
		net         network
		least, most int     // streams at the peak
		share       float64 // of what the path could carry, in two seconds
	}{
		"long fat path":         {network{80 * time.Millisecond, 20e6, 1e9}, 16, 16, 0.8}, // of 16 streams
		"long path, one Gbit/s": {network{80 * time.Millisecond, 20e6, 125e6}, 8, 16, 0.7},
		"slow upstream":         {network{80 * time.Millisecond, 20e6, 5e6}, farStreams, 2 * farStreams, 0.95},
		"loopback":              {network{100 * time.Microsecond, 1e9, 1e9}, nearStreams, 2 * nearStreams, 0.95},
		"near, each limited":    {network{time.Millisecond, 20e6, 1e9}, 16, 16, 0.7},
	} {
		start := time.Unix(0, 0)
		p := newPace(tt.net.latency, fillStreams, start)
		bytes, peak := tt.net.fill(p, start, 2*time.Second)
		if peak < tt.least || peak > tt.most {
			t.Errorf("%s: %d streams at the peak, want %d to %d", name, peak, tt.least, tt.most)
		}
		if most := 2 * min(fillStreams*tt.net.each, tt.net.total); float64(bytes) < tt.share*most {
			t.Errorf("%s: %.0f MB in 2 s, the path could carry %.0f", name, float64(bytes)/1e6, most/1e6)
		}
	}
}

// TestPaceAfterTrouble shows that trouble halves the streams, and that they come back where they help.
func TestPaceAfterTrouble(t *testing.T) {
	net, now := network{80 * time.Millisecond, 20e6, 1e9}, time.Unix(0, 0)
	p := newPace(net.latency, fillStreams, now)
	net.fill(p, now, 2*time.Second)
	now = now.Add(2 * time.Second)
	for want := fillStreams / 2; want > 0; want /= 2 {
		if p.back(now); p.target != want {
			t.Errorf("%d streams after trouble, want %d", p.target, want)
		}
	}
	if p.back(now); p.target != 1 {
		t.Errorf("%d streams, want 1 at least", p.target)
	}
	if net.fill(p, now, 5*time.Second); p.target != fillStreams {
		t.Errorf("%d streams 5 s after trouble, want %d", p.target, fillStreams)
	}
}

// TestPaceRun shows how runs shrink towards the end, so that all streams end together.
func TestPaceRun(t *testing.T) {
	p := newPace(80*time.Millisecond, fillStreams, time.Unix(0, 0))
	for left, want := range map[int64]int64{1 << 40: maxRun, 32 << 20: 2 << 20, 24 << 20: 24 << 20 / 16, 100: segmentSize} {
		if n := p.run(left); n != want {
			t.Errorf("%d bytes left: a run of %d, want %d", left, n, want)
		}
	}
	p.rate, p.target = 16e6, 4 // 4 MB/s a stream
	if n := p.run(1 << 40); n != 2e6 {
		t.Errorf("on a slow path a run of %d, want half a second's", n)
	}
}

func TestSlots(t *testing.T) {
	var s slots
	take := func(host string, mine int, l registry.Lane) (n int) {
		for s.take(host, mine+n, l) {
			n++
		}
		return n
	}
	s.enter("a")
	if n := take("a", 0, registry.LaneClient); n != fillStreams {
		t.Errorf("one fill got %d streams, want %d", n, fillStreams)
	}
	for range fillStreams {
		s.give("a")
	}
	for lane, want := range map[registry.Lane]int{registry.LaneEvent: eventStreams, registry.LaneSweep: sweepStreams, registry.LaneBackfill: sweepStreams} {
		n := take("a", 0, lane)
		if n != want {
			t.Errorf("lane %v got %d streams, want %d", lane, n, want)
		}
		for range n {
			s.give("a")
		}
	}
	for range 7 {
		s.enter("a") // 8 fills share the host's bound
	}
	for range 8 {
		if n := take("a", 0, registry.LaneClient); n != hostStreams/8 {
			t.Errorf("one of 8 fills got %d streams, want %d", n, hostStreams/8)
		}
	}
	s.enter("a")
	if !s.take("a", 0, registry.LaneClient) {
		t.Error("a fill without a stream was refused one")
	}
	if s.take("a", 1, registry.LaneClient) {
		t.Error("the host's bound does not hold")
	}
	for i := range 4 {
		host := string(rune('b' + i))
		s.enter(host)
		take(host, 0, registry.LaneClient)
	}
	if s.total > processStreams+2 { // two fills have only their first
		t.Errorf("%d streams in all, want %d", s.total, processStreams)
	}
	for s.hosts["a"].streams > 0 {
		s.give("a")
	}
	for range 9 {
		s.leave("a")
	}
	if _, ok := s.hosts["a"]; ok {
		t.Error("a host without fills is remembered")
	}
}
