package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

// storm is a campaign against mirrors of the real binary, built with the race detector. A round is a storm, in which clients
// pull, images are pushed, moved and deleted, every upstream fails in every way, disks are full and mirrors die; then a calm,
// in which everything has to be right again. The model says what right is.
//
// What an actor does follows from the seed alone, and so do the faults of a call, by its name and number; how the actors
// interleave does not. The log in the directory says what was done, when, and what came of it.
type storm struct {
	t     *testing.T
	seed  uint64
	dir   string // kept when the test fails
	log   *stormLog
	clock *stormClock
	emu   *ecrtest.Emulator
	model *model
	ci    *ci

	raging  atomic.Bool // faults are on
	mirrors []*subject
	samples [][]sample     // by round, of each mirror
	events  map[string]int // how many there were
}

// Every fault of every upstream, and every end of a process: no wrong byte, no lost job, no answer that could have been given,
// no growth. SOAK_SEED chooses another run, SOAK_TIME=2h makes it as long.
func TestStorm(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root")
	seed, last := stormSeed(t), stormTime(t)
	s := newStorm(t, seed)
	began := time.Now()
	for round := 0; round < 3 || time.Since(began) < last; round++ {
		s.rage(round)
		s.calm(round)
		if t.Failed() {
			break
		}
	}
	s.end()
	t.Logf("%d rounds in %v: %v", len(s.samples), time.Since(began).Round(time.Second), s.model.counts())
}

func stormSeed(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("SOAK_SEED")
	if text == "" {
		return 1
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SOAK_SEED=%q: want a number", text)
	}
	return seed
}

func stormTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK_TIME")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("SOAK_TIME=%q: want a duration, as 2h", text)
	}
	return d
}

// newStorm starts a source, two destinations and three mirrors: one that carries deletions on, and whose disk is small; one that
// works off a shared queue with a role of another account; and a sidecar of the first.
func newStorm(t *testing.T, seed uint64) *storm {
	t.Helper()
	dir, err := os.MkdirTemp("", "ecr-mirror-storm-")
	if err != nil {
		t.Fatal(err)
	}
	s := &storm{t: t, seed: seed, dir: dir, log: newStormLog(t, filepath.Join(dir, "operations.log")), clock: &stormClock{}, model: newModel(),
		events: make(map[string]int)}
	t.Cleanup(s.keep)
	t.Logf("SOAK_SEED=%d, in %s", seed, dir)
	if s.emu, err = ecrtest.New(ecrtest.Options{CrossAccount: true, Clock: s.clock.now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.emu.Close() }) // nothing is kept
	s.emu.OnEvent(s.deliveries)
	s.emu.Fault(s.fault)
	s.emu.Role(otherAccount, "mirror", "ecr:*")
	s.ci = newCI(t, s)
	s.mirrors = []*subject{
		newSubject(s, "propagating", [2]string{account, "eu-central-1"}, "propagate"),
		newSubject(s, "shared", [2]string{otherAccount, "ap-southeast-1"}, "ignore"),
	}
	s.mirrors = append(s.mirrors, newSidecar(s, "sidecar", s.mirrors[0]))
	t.Cleanup(func() { // before what they reach
		for _, m := range s.mirrors {
			m.end()
		}
	})
	for _, m := range s.mirrors {
		m.start()
	}
	return s
}

// keep removes the directory, or says where it is.
func (s *storm) keep() {
	s.log.close()
	if s.t.Failed() {
		s.t.Logf("SOAK_SEED=%d failed; logs, configurations and caches are in %s", s.seed, s.dir)
		return
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Error(err)
	}
}

const (
	stormClients = 6
	stormPulls   = 30 // per client and round
	stormPushes  = 20 // per pusher and round
	stormBlows   = 5  // per round
)

// rage is the storm of a round. It ends when clients and pushers have done what they were to do.
func (s *storm) rage(round int) {
	s.raging.Store(true)
	var work, blows sync.WaitGroup
	actor := func(wg *sync.WaitGroup, name string, n int, act func(*rand.Rand) (what, result string)) {
		r := s.random(fmt.Sprintf("%s %d", name, round))
		wg.Go(func() {
			for i := range n {
				began := time.Now()
				what, result := act(r)
				s.log.write(round, name, i, began, what, result)
			}
		})
	}
	for i := range stormClients {
		c := newStormClient(s)
		actor(&work, fmt.Sprint("client-", i), stormPulls, c.step)
	}
	for i := range ciPushers {
		actor(&work, fmt.Sprint("pusher-", i), stormPushes, func(r *rand.Rand) (string, string) { return s.ci.step(r, i) })
	}
	blow := &blower{s: s, round: round}
	actor(&blows, "blower", stormBlows, blow.step)
	work.Wait()
	blows.Wait()
	s.raging.Store(false)
}

// random is what name may do by chance.
func (s *storm) random(name string) *rand.Rand { return rand.New(rand.NewPCG(s.seed, hash(name))) }
