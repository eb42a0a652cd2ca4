// Package bench measures the built binary beside its peers, Debian's docker-registry as a pull-through cache and nginx, all
// on the same upstream, and prints one table. No number fails it; wrong bytes or a wrong status of ours do.
//
//	go test -run '^$' -bench . -benchtime 1x ./cmd/ecr-mirror/bench              all of it, as make bench does
//	go test -run '^$' -bench 'Peers/Cold(Image|Ranges)' -benchtime 1x ./cmd/ecr-mirror/bench
//
// BENCH_SCALE=0.25 makes every blob a quarter as large; BENCH_OBJECTS=100000 is for Start; BENCH_BINARY=PATH measures a
// binary that is there instead of building one. As a test, every scenario runs once on little data.
//
// # Limitations
//
// Linux only. Everything runs on one machine: clients and the upstream take CPU from the servers, so that times (not CPU
// seconds) of unlimited transfers say little. A long path is modelled as a delay per request and per new connection and a
// steady rate per connection, without loss or slow start. Much of what the loopback costs is counted with the server that
// sends; see isolated.
package bench

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// conditions are how much a scenario does, and where its figures go.
type conditions struct {
	wan     path          // to the upstream of cold pulls
	scale   float64       // of the sizes of blobs
	rounds  int           // of each server, in turn, of which the median counts: what else the machine does changes with time
	calls   int           // requests for a manifest on one connection
	objects int           // in the cache at the start
	watch   time.Duration // for slow readers
	faults  []fault
	table   *table
}

var scenarios = []struct {
	name string
	run  func(testing.TB, conditions)
}{
	{"ColdImage", coldImage},
	{"ColdCrowd", coldCrowd},
	{"ColdRanges", coldRanges},
	{"Faults", faults},
	{"HotBlob", hotBlob},
	{"HotManifest", hotManifest},
	{"SlowReaders", slowReaders},
	{"FillCPU", fillCPU},
	{"Replicas", manyReplicas},
	{"Start", start},
}

// results is what BenchmarkPeers found.
var results table

func BenchmarkPeers(b *testing.B) {
	c := conditions{wan: path{latency: 80 * time.Millisecond, rate: 20e6}, scale: 1, rounds: 5, calls: 2500, objects: 1_000_000,
		watch: 4 * time.Second, faults: []fault{reset, stall, expired, burst503, burst429}, table: &results}
	var err error
	if text := os.Getenv("BENCH_SCALE"); text != "" {
		if c.scale, err = strconv.ParseFloat(text, 64); err != nil || c.scale <= 0 {
			b.Fatalf("BENCH_SCALE %q: want a positive number", text)
		}
	}
	if text := os.Getenv("BENCH_OBJECTS"); text != "" {
		if c.objects, err = strconv.Atoi(text); err != nil || c.objects <= 0 {
			b.Fatalf("BENCH_OBJECTS %q: want a positive number", text)
		}
	}
	for _, s := range scenarios {
		b.Run(s.name, func(b *testing.B) { s.run(b, c) })
	}
}

// TestScenarios runs every scenario on little data, for what it verifies: its figures mean nothing. A stall is left out, for
// it takes as long as the server's patience.
func TestScenarios(t *testing.T) {
	c := conditions{wan: path{latency: time.Millisecond, rate: 20e6}, scale: 1. / 64, rounds: 1, calls: 10, objects: 1000,
		watch: 250 * time.Millisecond, faults: []fault{reset, expired, burst503, burst429}}
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.table = new(table)
			s.run(t, c)
			for _, r := range c.table.rows {
				if _, ok := r.got[ours]; !ok {
					t.Errorf("%s: no figure", r.what)
				}
			}
		})
	}
}

// scratch is a directory for what is built once and what servers keep; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == plainLoopArg {
		if err := plainLoop(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	measuring := flag.Lookup("test.bench").Value.String() != ""
	var err error
	if os.Getenv(inside) != "" {
		err = setUp()
	} else if measuring {
		if status, ok := isolated(); ok {
			os.Exit(status)
		}
	}
	if err == nil {
		scratch, err = os.MkdirTemp("", "ecr-mirror-bench-")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	status := m.Run()
	if measuring {
		fmt.Printf("\n%s\n", machine())
		results.print(os.Stdout)
	}
	_ = os.RemoveAll(scratch) // nobody needs it any more
	os.Exit(status)
}

var buildBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BENCH_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	out := filepath.Join(scratch, "ecr-mirror")
	return out, programs.Build(out, filepath.Join("..", "..", ".."), "cmd/ecr-mirror")
})

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// scaled is n bytes times the scale, at least 64 KiB.
func (c conditions) scaled(n int) int { return max(64*kib, int(float64(n)*c.scale)) }

// size writes bytes for a human.
func size(n int) string {
	if n < mib {
		return fmt.Sprintf("%d KiB", n/kib)
	}
	return fmt.Sprintf("%d MiB", n/mib)
}
