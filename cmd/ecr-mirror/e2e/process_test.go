package e2e

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a daemon that a test started.
type process struct {
	*exec.Cmd
	stdout, stderr output
	done           chan struct{} // closed when it ended
}

// output is what a process printed so far; reading and writing may be concurrent.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// start runs a daemon until the test ends, and shows the end of its output when the test failed.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = &p.stdout, &p.stderr
	// A daemon does not outlive tests that were killed.
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		_ = p.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			text := p.stdout.String() + p.stderr.String()
			t.Logf("%s %s printed:\n%s", name, strings.Join(args, " "), text[max(0, len(text)-16000):])
		}
	})
	return p
}

// stop ends p in order and waits; what does not end within half a minute is killed and fails the test.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		t.Errorf("%s: still running 30 s after SIGTERM", p.Path)
		p.kill()
	}
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.Process.Kill() // it may have ended
	<-p.done
}

// wait polls until ok, for at most half a minute, or until p ended.
func (p *process) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		select {
		case <-p.done:
			t.Fatalf("%s ended before %s: %v\n%s", p.Path, what, p.ProcessState, p.stderr.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not %s within 30 s", p.Path, what)
		}
	}
}

// eventually polls until ok, for at most half a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// run runs a client to its end and returns what it printed; a failure fails the test.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, env, name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// try is run for a client that may fail.
func try(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), err
}

// nextPort is where freeAddr looks on: below the ports that the kernel gives to connections and listeners that ask for any
// (net.ipv4.ip_local_port_range, 32768 and up), one of which would else take it before its daemon listens.
var nextPort = sync.OnceValue(func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(15000 + rand.Int64N(10000))
	return &n
})

// freeAddr returns a loopback address that nobody listens on, and that no other test gets.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort().Add(1)))
		if err != nil {
			continue
		}
		_ = l.Close() // nobody dialled it
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// tempDir is a directory with a short name, for the sockets in it: their paths have at most 107 bytes. What a daemon left
// mounted in it is unmounted first.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts, err := os.ReadFile("/proc/self/mounts")
		if err != nil {
			t.Error(err)
		}
		for line := range strings.Lines(string(mounts)) {
			if f := strings.Fields(line); strings.HasPrefix(f[1], dir+"/") {
				_ = syscall.Unmount(f[1], syscall.MNT_DETACH) // what stays mounted fails the removal
			}
		}
		// A container's last helper process may still be writing.
		eventually(t, "remove "+dir, func() bool { return os.RemoveAll(dir) == nil })
	})
	return dir
}
