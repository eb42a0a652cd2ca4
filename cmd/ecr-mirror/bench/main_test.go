// Package bench measures the built binary beside its peers, Debian's docker-registry as a pull-through cache and nginx, all
// on the same upstream, and prints one table. No number fails it; a wrong byte or a daemon that does not start does.
//
//	go test -run '^$' -bench . -benchtime 1x ./cmd/ecr-mirror/bench              all of it, as make bench does
//	go test -run '^$' -bench 'Cold(Image|Ranges)' -benchtime 1x ./cmd/ecr-mirror/bench
//
// BENCH_SCALE=0.25 makes every blob a quarter as large; BENCH_OBJECTS=1000000 is for BenchmarkStart; BENCH_BINARY=PATH
// measures a binary that is there instead of building one.
//
// # Limitations
//
// Linux only. Everything runs on one machine: clients and the upstream take CPU from the servers, so that times (not CPU
// seconds) of unlimited transfers say little. A long path is modelled as a delay per request and per new connection and a
// steady rate per connection, without loss or slow start.
package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
)

// scratch is a directory for what is built once; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "plain-loop" {
		if err := plainLoop(os.Args[2], os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	var err error
	if scratch, err = os.MkdirTemp("", "ecr-mirror-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	status := m.Run()
	results.print(os.Stdout)
	_ = os.RemoveAll(scratch) // nobody needs it any more
	os.Exit(status)
}

var buildBinary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("BENCH_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	out := filepath.Join(scratch, "ecr-mirror")
	cmd := exec.Command("go", "build", "-trimpath", "-o", out, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, msg)
	}
	return out, nil
})

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// scaled is n times BENCH_SCALE, at least 1 MiB.
func scaled(b *testing.B, n int) int {
	text := os.Getenv("BENCH_SCALE")
	if text == "" {
		return n
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f <= 0 {
		b.Fatalf("BENCH_SCALE %q: want a positive number", text)
	}
	return max(mib, int(float64(n)*f))
}
