package systemd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// The unit is as closed as systemd-analyze can see: 10 is exposed, 0 cannot be reached by what has a network.
func TestExposure(t *testing.T) {
	t.Parallel()
	programs.Need(t, "systemd-analyze")
	out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=12", "ecr-mirror.service").CombinedOutput()
	if err != nil {
		t.Errorf("more than 1.2: %v\n%s", err, out)
	}
}

// A real systemd starts the unit as it is delivered: it is ready when it says so, has no privilege, fills and serves from its
// state directory under all restrictions, comes back when it is killed, and stops in order.
func TestUnitStarts(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "systemd-analyze", "ip", "unshare", "nsenter")
	binary, err := build()
	if err != nil {
		t.Fatal(err)
	}
	m := boot(t, binary)
	img := m.upstream(t)
	m.eventually(t, "the unit is active", func() bool { return m.property("ActiveState") == "active" })
	if out := m.run(t, "systemd-analyze", "verify", "ecr-mirror.service"); strings.Contains(out, "ecr-mirror") {
		t.Errorf("verify: %s", out)
	}
	m.pull(t, img)
	m.pull(t, img) // from the disk

	pid := m.property("MainPID")
	status := m.run(t, "cat", "/proc/"+pid+"/status")
	user := strings.TrimSpace(m.run(t, "id", "-u", "ecr-mirror"))
	for _, want := range []string{`Uid:\t` + user + `\t` + user, `CapEff:\t0+\n`, `CapBnd:\t0+\n`, `NoNewPrivs:\t1\n`, `Seccomp:\t2\n`} {
		if !regexp.MustCompile(want).MatchString(status) {
			t.Errorf("no %s in\n%s", want, status)
		}
	}
	var own unix.Rlimit // not every root may raise it
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		t.Fatal(err)
	}
	if limits := m.run(t, "cat", "/proc/"+pid+"/limits"); !regexp.MustCompile(fmt.Sprintf(`Max open files +(65536|%d) `, own.Max)).MatchString(limits) {
		t.Errorf("limits:\n%s", limits)
	}
	if got := m.run(t, "stat", "-c", "%U %a", "/var/lib/ecr-mirror", "/var/lib/ecr-mirror/queue.db"); got != "ecr-mirror 750\necr-mirror 600\n" {
		t.Errorf("the state directory: %s", got)
	}

	m.run(t, "kill", "-9", pid)
	m.eventually(t, "it is started again", func() bool {
		return m.property("ActiveState") == "active" && m.property("MainPID") != pid && m.property("NRestarts") == "1"
	})
	m.pull(t, img)
	m.run(t, "systemctl", "stop", "ecr-mirror")
	if got := m.property("Result") + " " + m.property("ActiveState"); got != "success inactive" {
		t.Errorf("stopped: %s", got)
	}
}

// machine is a systemd in namespaces of its own.
type machine struct {
	pid  int // of systemd, here
	http *http.Client
}

func boot(t *testing.T, binary string) *machine {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "ecr-mirror-systemd-")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command("unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "sh", "testdata/boot.sh", dir, binary)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it does not outlive tests that were killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	m := &machine{}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.command("journalctl", "--no-pager", "-n", "60").CombinedOutput() // what there is of it
			t.Logf("%s", out)
		}
		_ = cmd.Process.Kill() // and with it, by --kill-child, all that it started
		<-ended
		if t.Failed() {
			t.Logf("boot: %s", log.Bytes())
		}
		m.eventually(t, "its control groups are gone", func() bool { return removeGroups(filepath.Base(dir)) })
	})
	m.eventually(t, "systemd runs", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("boot: %v", err)
		default:
		}
		m.pid = child(cmd.Process.Pid)
		return m.pid != 0 && m.command("systemctl", "is-system-running", "--wait").Run() == nil
	})
	m.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		return c, m.inside(func() error { c, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
	}}}
	t.Cleanup(m.http.CloseIdleConnections)
	return m
}

// removeGroups removes the control group of that name and those in it: they stay when their processes end.
func removeGroups(name string) bool {
	gone := true
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/systemd"} {
		var all []string
		_ = filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		for _, path := range slices.Backward(all) {
			gone = os.Remove(path) == nil && gone
		}
	}
	return gone
}

// child is the one process that pid started; 0: there is none.
func child(pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(text))) // or none
	return n
}

// inside runs f in the machine's network.
func (m *machine) inside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		net, err := os.Open(filepath.Join("/proc", strconv.Itoa(m.pid), "ns/net"))
		if err == nil {
			defer net.Close()
			err = unix.Setns(int(net.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (m *machine) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--target", strconv.Itoa(m.pid), "--pid", "--mount", "--net", "--uts", "--ipc", name}, args...)...)
}

func (m *machine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// property is one of the unit's; "" while nobody says.
func (m *machine) property(name string) string {
	out, _ := m.command("systemctl", "show", "--property", name, "--value", "ecr-mirror").Output() // it may not answer yet
	return strings.TrimSpace(string(out))
}

func (m *machine) eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// upstream is the registry that the unit's configuration names, with one image.
func (m *machine) upstream(t *testing.T) registrytest.Node {
	t.Helper()
	store := mem.New()
	img := registrytest.Image(1, 3<<20)
	registrytest.Push(t, store, "team/app", "v1", img)
	var l net.Listener
	if err := m.inside(func() (err error) { l, err = net.Listen("tcp", "127.0.0.1:5010"); return err }); err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: store}}})}
	go func() { _ = srv.Serve(l) }() // ends when it is closed
	t.Cleanup(func() { _ = srv.Close() })
	return img
}

// pull reads an image through the unit.
func (m *machine) pull(t *testing.T, img registrytest.Node) {
	t.Helper()
	get := func(path string, want []byte) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:5000/v2/team/app/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", strings.Join(registry.ManifestTypes(), ", "))
		res, err := m.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if got, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
			t.Fatalf("%s: %s, %d of %d bytes, %v", path, res.Status, len(got), len(want), err)
		}
	}
	get("manifests/v1", img.Body)
	for _, b := range img.Blobs {
		get("blobs/"+b.Desc.Digest.String(), b.Body)
	}
}
