package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// subject is a mirror under test: a process with its directory and everything that it reaches.
type subject struct {
	s               *storm
	name, dir       string
	cache           string // directory
	account, region string // of the destination; "": none
	queue           string
	addr, admin     string
	config          string
	env             []string
	server          *httptest.Server // all of its upstreams
	below           *subject         // a sidecar's upstream
	propagates      bool             // deletions

	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{}
	ending   bool // by us
	troubles []trouble
}

// trouble is a time in which a mirror could not answer, for reasons that are not its own.
type trouble struct{ from, to time.Time }

const (
	stormSize = 32 << 20 // bytes of each cache: less than there is to pull
	stormDisk = 64 << 20 // bytes of the file system that it is on
	stormTTL  = time.Second
)

// newSubject is a mirror of one destination. One that does not carry deletions on is one of several replicas, and acts with a role
// of the destination's account.
func newSubject(s *storm, name string, destination [2]string, deletes string) *subject {
	m := prepare(s, name)
	m.propagates = deletes == "propagate"
	m.account, m.region, m.queue = destination[0], destination[1], "pushes-for-"+name
	s.emu.Registry(m.account, m.region)
	s.emu.Subscribe(account, sourceRegion, m.queue)
	m.server = httptest.NewServer(s.emu.Handler())
	s.t.Cleanup(m.server.Close)
	role, shared, replication := "", true, "{sweep: 1m}"
	if m.propagates {
		shared, replication = false, "{sweep: 1m, deletes: propagate, deletion: {grace: 1s, interval: 1s, perRun: 1000}}"
	} else {
		role = fmt.Sprintf(", roleArn: \"arn:aws:iam::%s:role/mirror\"", m.account)
	}
	m.env = append(m.env, "AWS_ENDPOINT_URL_STS="+m.server.URL)
	m.configure(fmt.Sprintf("- source: {registry: %s, endpoint: %q}\n"+
		"  destination: {registry: %s.dkr.ecr.%s.amazonaws.com, endpoint: %q%s}\n  tags: {ttl: %v}\n  events: {sqs: %q, shared: %v}\n  replication: %s\n",
		stormHost, m.server.URL, m.account, m.region, m.server.URL, role, stormTTL, m.server.URL+"/"+account+"/"+m.queue, shared, replication))
	return m
}

const stormHost = account + ".dkr.ecr." + sourceRegion + ".amazonaws.com"

// newSidecar is a mirror whose source is the mirror below, over a network that is no better than that to the regions.
func newSidecar(s *storm, name string, below *subject) *subject {
	m := prepare(s, name)
	m.below = below
	m.server = httptest.NewServer(s.meddle(below.addr))
	s.t.Cleanup(m.server.Close)
	m.configure(fmt.Sprintf("- names: [%s]\n  source: {registry: %q, ns: %s}\n  tags: {ttl: %v}\n", stormHost, m.server.URL, stormHost, stormTTL))
	return m
}

func prepare(s *storm, name string) *subject {
	t, dir := s.t, filepath.Join(s.dir, name)
	m := &subject{s: s, name: name, dir: dir, cache: filepath.Join(dir, "cache"), addr: freeAddr(t), admin: freeAddr(t),
		config: filepath.Join(dir, "config.yaml")}
	if err := os.MkdirAll(m.cache, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", m.cache, "tmpfs", 0, fmt.Sprint("size=", stormDisk)); err != nil {
		t.Fatal("mount: ", err)
	}
	c := s.emu.Credentials(account)
	m.env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+c.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+c.SecretAccessKey, "AWS_REGION="+sourceRegion,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "GORACE=halt_on_error=1 exitcode=66")
	return m
}

func (m *subject) configure(mirrors string) {
	write(m.s.t, m.config, fmt.Sprintf("listen: %s\nadmin: %s\nauth: {none: true}\ncache: {path: %s, size: %d}\nmirrors:\n%s",
		m.addr, m.admin, m.cache, stormSize, mirrors))
}

func (m *subject) logFile() string { return filepath.Join(m.dir, "stderr.log") }

// start starts the process, and returns when it is ready. Its port may be somebody's for a moment.
func (m *subject) start() {
	for range 50 {
		log, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			m.s.t.Error(err)
			return
		}
		cmd, done := exec.Command(raceBinary(m.s.t), "serve", "--config", m.config), make(chan struct{})
		cmd.Env, cmd.Stderr, cmd.SysProcAttr = m.env, log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		if err := cmd.Start(); err != nil {
			m.s.t.Error(err)
			return
		}
		_ = log.Close() // the process has its own
		go func() {
			_ = cmd.Wait() // how it ended is in ProcessState
			close(done)
		}()
		m.mu.Lock()
		m.cmd, m.done, m.ending = cmd, done, false
		m.mu.Unlock()
		if m.awaitReady(done) {
			return
		}
		if b, err := os.ReadFile(m.logFile()); err != nil || !strings.Contains(string(b[max(0, len(b)-1000):]), "address already in use") {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	m.s.t.Errorf("%s does not start: see %s", m.name, m.logFile())
}

func (m *subject) awaitReady(done <-chan struct{}) bool {
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); {
		if status("http://"+m.admin+"/readyz") == http.StatusOK {
			return true
		}
		select {
		case <-done:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

// alive reports whether the process runs; one that ended by itself fails the test.
func (m *subject) alive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.done:
	default:
		return true
	}
	if !m.ending {
		m.ending = true
		m.s.t.Errorf("%s ended by itself: %v: see %s", m.name, m.cmd.ProcessState, m.logFile())
	}
	return false
}

// signal ends the process by SIGKILL or SIGTERM, and waits; one that SIGTERM does not end well fails the test.
func (m *subject) signal(sig syscall.Signal) {
	m.alive()
	m.mu.Lock()
	m.ending = true
	cmd, done := m.cmd, m.done
	m.mu.Unlock()
	_ = cmd.Process.Signal(sig) // it may have ended
	select {
	case <-done:
	case <-time.After(time.Minute):
		_ = cmd.Process.Signal(syscall.SIGQUIT) // for its stacks
		m.s.t.Errorf("%s runs a minute after %v: see %s", m.name, sig, m.logFile())
		<-done
	}
	if sig == syscall.SIGTERM && cmd.ProcessState.ExitCode() != 0 {
		m.s.t.Errorf("%s ended with %v after SIGTERM: see %s", m.name, cmd.ProcessState, m.logFile())
	}
}

// during notes f as a time in which the mirror cannot answer.
func (m *subject) during(f func()) {
	m.mu.Lock()
	m.troubles = append(m.troubles, trouble{from: time.Now()})
	i := len(m.troubles) - 1
	m.mu.Unlock()
	f()
	m.mu.Lock()
	m.troubles[i].to = time.Now().Add(time.Second)
	m.mu.Unlock()
}

// troubled reports whether it was in trouble at some time from from to now, or what is below it.
func (m *subject) troubled(from time.Time) bool {
	if m.below != nil && m.below.troubled(from) {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.troubles {
		if t.to.IsZero() || t.to.After(from) {
			return true
		}
	}
	return false
}

// end stops the process when the test ends, and gives its disk back.
func (m *subject) end() {
	if m.cmd != nil {
		m.signal(syscall.SIGTERM)
	}
	if m.s.t.Failed() {
		if out, err := exec.Command("cp", "-a", m.cache, m.cache+"-kept").CombinedOutput(); err != nil {
			m.s.t.Errorf("keep %s: %v: %s", m.cache, err, out)
		}
	}
	if err := syscall.Unmount(m.cache, syscall.MNT_DETACH); err != nil {
		m.s.t.Errorf("unmount %s: %v", m.cache, err)
	}
}

// ballast fills the disk to its last byte.
func (m *subject) ballast() error {
	f, err := os.Create(filepath.Join(m.cache, "ballast"))
	if err != nil {
		return err
	}
	defer f.Close()
	for chunk := make([]byte, 1<<20); ; {
		if _, err := f.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			if len(chunk) == 1 {
				return nil
			}
			chunk = chunk[:len(chunk)/2]
		} else if err != nil {
			return err
		}
	}
}

func (m *subject) lighten() {
	if err := os.Remove(filepath.Join(m.cache, "ballast")); err != nil {
		m.s.t.Error(err)
	}
}
