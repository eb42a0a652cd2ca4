package helm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// process is a daemon that a test started.
type process struct {
	*exec.Cmd
	out  output
	done chan struct{} // closed when it ended
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
func start(t *testing.T, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.Stdout, p.Stderr = &p.out, &p.out
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
		p.stop(t, 30*time.Second)
		if t.Failed() {
			text := p.out.String()
			t.Logf("%s printed:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	return p
}

// stop ends p in order; what does not end in time is killed and fails the test.
func (p *process) stop(t *testing.T, within time.Duration) {
	t.Helper()
	_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(within):
		t.Errorf("%s: still running %s after SIGTERM", p.Path, within)
		_ = p.Process.Kill() // it may have ended meanwhile
		<-p.done
	}
}

// eventually polls until ok, for at most a minute, or until p, if there is one, ended.
func eventually(t *testing.T, what string, p *process, ok func() bool) {
	t.Helper()
	var done chan struct{}
	if p != nil {
		done = p.done
	}
	for deadline := time.Now().Add(time.Minute); !ok(); {
		select {
		case <-done:
			t.Fatalf("ended before %s: %v", what, p.ProcessState)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// nextPort is below the ports that the kernel gives to whoever asks for any, and not where other packages' tests look.
var nextPort = sync.OnceValue(func() *atomic.Int64 {
	var n atomic.Int64
	n.Store(26000 + mathrand.Int64N(5000))
	return &n
})

// freeAddr returns a loopback address that nobody listens on, and that no other test gets.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.FormatInt(nextPort().Add(1), 10))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close() // nobody dialled it
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// writeKey writes a private key in PEM.
func writeKey(t *testing.T, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
