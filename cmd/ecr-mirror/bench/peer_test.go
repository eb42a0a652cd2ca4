package bench

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// peer is a running server.
type peer struct {
	name string
	addr string
	dir  string // its files; outlives a restart
	cmd  *exec.Cmd
	done chan struct{} // closed when it ended
	args []string
}

func installed(name string) bool {
	if name == ours {
		return true
	}
	_, err := exec.LookPath(name)
	return err == nil
}

// servers are those that are installed, ours first.
func servers() []string {
	return slices.DeleteFunc([]string{ours, dist, nginx}, func(name string) bool { return !installed(name) })
}

// each runs measure with every peer that is installed, one after the other, each fresh and with an empty cache. One that
// fails has NaN for its figures, and ours fails t.
func each(t testing.TB, u *upstream, measure func(*peer) error, into ...figures) {
	t.Helper()
	for _, name := range servers() {
		p := startPeer(t, name, u)
		u.sent()
		err := measure(p)
		p.stop()
		if err == nil {
			continue
		}
		for _, f := range into {
			f[name] = math.NaN()
		}
		p.failed(t, err)
	}
}

// failed notes what p could not do. It fails t if p is ours.
func (p *peer) failed(t testing.TB, err error) {
	t.Helper()
	if p.name != ours {
		t.Logf("%s: %v", p.name, err)
		return
	}
	t.Errorf("%s: %v\n%s", p.name, err, p.output())
}

// startPeer starts a server in front of u, with an empty cache.
func startPeer(t testing.TB, name string, u *upstream) *peer {
	t.Helper()
	p := &peer{name: name, addr: ownAddr(), dir: tempDir(t)}
	config := filepath.Join(p.dir, "config")
	switch name {
	case ours:
		binary, err := buildBinary()
		if err != nil {
			t.Fatal(err)
		}
		write(t, config, fmt.Sprintf("listen: %s\nadmin: %s\ncache: {path: %s, size: 20GiB}\nmirrors: [{source: {registry: %q}}]\n",
			p.addr, ownAddr(), filepath.Join(p.dir, "cache"), "http://"+u.host))
		p.args = []string{binary, "serve", "--config", config}
	case dist:
		write(t, config, fmt.Sprintf("version: 0.1\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\nproxy: {remoteurl: %q}\n",
			filepath.Join(p.dir, "cache"), p.addr, "http://"+u.host))
		p.args = []string{dist, "serve", config}
	case nginx:
		write(t, config, nginxConfig(p.dir, p.addr, u.host))
		p.args = []string{nginx, "-c", config, "-p", p.dir, "-e", filepath.Join(p.dir, "error.log")}
	}
	p.start(t)
	return p
}

// nginxConfig is nginx as a cache of slices of blobs, one download of each at a time, and of files under static/. It
// follows the redirect itself. The access log is on, as it is in the other two.
func nginxConfig(dir, addr, up string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	return strings.NewReplacer("DIR", dir, "ADDR", addr, "UPSTREAM", up, "USER", user).Replace(`USER
daemon off;
pid DIR/pid;
worker_processes 2;
events { worker_connections 1024; }
http {
  access_log DIR/access.log;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 100000000;
  default_type application/octet-stream;
  client_body_temp_path DIR/body; fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  proxy_temp_path DIR/proxy;
  proxy_cache_path DIR/cache levels=2 keys_zone=z:16m max_size=20g inactive=1d use_temp_path=off;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_cache z;
  proxy_cache_lock on; proxy_cache_lock_timeout 10m; proxy_cache_lock_age 10m;
  proxy_cache_valid 200 206 1d;
  server {
    listen ADDR backlog=1024;
    root DIR;
    location /static/ { }
    location = /v2/ { return 200; }
    location ~ /manifests/ {
      proxy_cache_key $uri;
      proxy_pass http://UPSTREAM;
    }
    location ~ /blobs/ {
      slice 4m;
      proxy_cache_key $uri$slice_range;
      proxy_set_header Range $slice_range;
      proxy_intercept_errors on;
      error_page 307 = @layer;
      proxy_pass http://UPSTREAM;
    }
    location @layer {
      slice 4m;
      set $to $upstream_http_location;
      proxy_cache_key $uri$slice_range;
      proxy_set_header Range $slice_range;
      proxy_pass $to;
    }
  }
}
`)
}

// start starts p, again if need be, and waits until it answers.
func (p *peer) start(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p.cmd, p.done = exec.Command(p.args[0], p.args[1:]...), make(chan struct{})
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it does not outlive a benchmark that was killed
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	cmd, done := p.cmd, p.done
	go func() {
		_ = cmd.Wait() // how it ended does not matter
		close(done)
	}()
	t.Cleanup(p.stop)
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if resp, err := http.Get("http://" + p.addr + "/v2/"); err == nil {
			resp.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			return
		}
		select {
		case <-p.done:
			t.Fatalf("%s ended:\n%s", p.name, p.output())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer:\n%s", p.name, p.output())
		}
	}
}

// stop ends p and waits; a second call does nothing.
func (p *peer) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
	case <-time.After(5 * time.Second): // clients that are still reading
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// output is the end of what p printed.
func (p *peer) output() string {
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4000):])
}

// processes are p's, with nginx's workers.
func (p *peer) processes() []int {
	pids := []int{p.cmd.Process.Pid}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pids[0]))
	if err != nil {
		return pids
	}
	for f := range strings.FieldsSeq(string(children)) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// cpu is the user and system time that p has used, in seconds; the kernel counts it in hundredths.
func (p *peer) cpu() (sum float64) {
	for _, pid := range p.processes() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		for _, ticks := range f[11:13] { // utime, stime
			n, _ := strconv.ParseFloat(ticks, 64)
			sum += n / 100
		}
	}
	return sum
}

// memory is p's resident memory in MiB: now (VmRSS) or at its greatest (VmHWM).
func (p *peer) memory(which string) (sum float64) {
	for _, pid := range p.processes() {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, which+":"); ok {
				n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				sum += n / 1024
			}
		}
	}
	return sum
}

// hosts counts the loopback addresses that were given out.
var hosts atomic.Uint32

// ownAddr returns an address on a loopback host that nobody else has: no port has to be found that stays free.
func ownAddr() string {
	n := hosts.Add(1)
	return fmt.Sprintf("127.%d.%d.%d:5000", 1+os.Getpid()%254, n/250, 1+n%250)
}

func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // scratch goes at the end in any case
	return dir
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
