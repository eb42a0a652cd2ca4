package e2e

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// The commands between Debian's registries: plan, a sync that SIGTERM interrupts in the middle of an upload, the sync that goes
// on, status and ready, by their exit codes.
func TestSyncCommand(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry", "crane")
	source, registry := dockerRegistry(t), dockerRegistry(t)
	for _, tag := range []string{"1", "2", "3"} {
		push(t, source, "team/app", tag, image(t, "amd64", "synced-"+tag, 2<<20))
	}
	destination := newGate(t, registry, &gate{holdUpload: true})
	dir := tempDir(t)
	config := filepath.Join(dir, "config.yaml")
	write(t, config, fmt.Sprintf("listen: %s\nadmin: %s\ncache: {path: %s, size: 1GiB}\nmirrors:\n%s\n", freeAddr(t), freeAddr(t),
		filepath.Join(dir, "cache"), plain(registryName, source, destination.addr)))
	command := func(want int, args ...string) string {
		t.Helper()
		out, err := try(t, nil, binary(t), append(args, "--config", config)...)
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != want {
			t.Errorf("%v: exit code %d, want %d\n%s", args, code, want, out)
		}
		return out
	}
	if out := command(0, "plan"); strings.Count(out, "add tag") != 4 || !strings.Contains(out, "3 jobs") {
		t.Errorf("plan printed\n%s", out)
	}
	command(4, "ready", "team/app:2", "--timeout", "0s")

	sync := start(t, nil, binary(t), "sync", "--config", config)
	<-destination.held
	if err := sync.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-sync.done:
	case <-time.After(30 * time.Second):
		t.Fatal("sync did not end after SIGTERM")
	}
	if code := sync.ProcessState.ExitCode(); code != 130 || !strings.Contains(sync.stderr.String(), "run sync again") {
		t.Errorf("interrupted: exit code %d\n%s", code, sync.stderr.String())
	}
	destination.open()
	if out := command(0, "sync"); !strings.Contains(out, "3 of 3 jobs") {
		t.Errorf("sync printed\n%s", out)
	}
	run(t, nil, "crane", "validate", "--remote", registry+"/team/app:3")
	command(0, "ready", "team/app:2", "--timeout", "10s")
	if out := command(0, "status", "team/app:2"); !strings.Contains(out, "ready") {
		t.Errorf("status printed\n%s", out)
	}
	command(2, "ready", "team/app")
}
