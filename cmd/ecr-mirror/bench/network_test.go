package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inside marks the process that runs in a network of its own.
const inside = "BENCH_INSIDE"

const congestion = "/proc/sys/net/ipv4/tcp_congestion_control"

// isolated runs this process again in a network of its own, for which it needs root: nobody else is on that loopback, and
// its congestion control is Reno. BBR, the default of some machines, sends by timers even there, which double what sending
// costs and hide what differs. It reports whether that could be done, and how the process ended.
func isolated() (status int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // the child dies with the thread that started it
	err := cmd.Run()
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) {
		return cmd.ProcessState.ExitCode(), true
	}
	fmt.Fprintln(os.Stderr, "bench: no network of its own:", err)
	return 0, false
}

// setUp makes a new network's loopback usable.
func setUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return errors.Join(unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo), os.WriteFile(congestion, []byte("reno"), 0))
}

// machine describes what the figures were measured on.
func machine() string {
	control, _ := os.ReadFile(congestion)
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d cores, %s, Linux %s, TCP %s", runtime.NumCPU(), runtime.Version(),
		strings.TrimSpace(string(kernel)), strings.TrimSpace(string(control)))
}
