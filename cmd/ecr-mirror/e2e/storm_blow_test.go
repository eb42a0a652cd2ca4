package e2e

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"
)

// blower does to mirrors and regions what clients and calls do not: processes end, disks fill up, regions are gone, clocks jump,
// roles are taken away.
type blower struct {
	s     *storm
	round int
}

const (
	trustNobody = `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`
	trustAll    = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`
)

// kills reports whether mirrors die in this round. Those of the others live through several, so that what leaks shows.
func kills(round int) bool { return round%8 < 2 }

func (b *blower) step(r *rand.Rand) (what, result string) {
	time.Sleep(time.Duration(300+r.IntN(1200)) * time.Millisecond)
	s := b.s
	m, n := s.mirrors[r.IntN(2)], r.IntN(9)
	if n < 3 && !kills(b.round) {
		n += 3
	}
	lasting := time.Duration(300+r.IntN(2000)) * time.Millisecond
	switch n {
	case 0, 1:
		what = "kill -9 " + m.name
		m.during(func() { m.signal(syscall.SIGKILL); m.start() })
	case 2:
		what = "stop " + m.name
		m.during(func() { m.signal(syscall.SIGTERM); m.start() })
	case 3:
		what = fmt.Sprintf("pause %s for %v", m.name, lasting)
		m.during(func() {
			_ = m.cmd.Process.Signal(syscall.SIGSTOP) // it may have ended, which start and stop see
			time.Sleep(lasting)
			_ = m.cmd.Process.Signal(syscall.SIGCONT)
		})
	case 4, 5:
		what = "full disk of " + m.name
		if err := m.ballast(); err != nil {
			s.t.Error(err)
		}
		time.Sleep(lasting)
		m.lighten()
	case 6:
		region := s.emu.Registry(account, sourceRegion)
		what = fmt.Sprintf("source away for %v", lasting)
		for _, m := range s.mirrors {
			defer m.during(func() {})
		}
		region.SetUnreachable(true)
		time.Sleep(lasting)
		region.SetUnreachable(false)
	case 7:
		what = fmt.Sprintf("destination of %s down for %v", m.name, lasting)
		region := s.emu.Registry(m.account, m.region)
		region.SetDown(true)
		time.Sleep(lasting)
		region.SetDown(false)
	default:
		what = fmt.Sprintf("role away, clock at %v", s.clock.jump(r))
		if err := s.emu.Trust(otherAccount, "mirror", trustNobody); err != nil {
			s.t.Error(err)
		}
		time.Sleep(lasting)
		if err := s.emu.Trust(otherAccount, "mirror", trustAll); err != nil {
			s.t.Error(err)
		}
		s.clock.jump(r)
	}
	return what, "ok"
}

// stormClock is that of the regions: it jumps by hours, there and back. Tokens, sessions and presigned URLs expire by it, images
// and events have its times. The mirrors' own stays, for a process cannot be given another.
type stormClock struct {
	mu       sync.Mutex
	off, max time.Duration
}

func (c *stormClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *stormClock) jump(r *rand.Rand) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += time.Duration(r.IntN(17)-4) * time.Hour
	c.max = max(c.max, c.off)
	return c.off
}

// settle ends the jumps a little after the latest time that there was: what a queue hid for a time is seen again.
func (c *stormClock) settle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.max += 10 * time.Minute
	c.off = c.max
}
