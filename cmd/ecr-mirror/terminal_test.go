package main

import (
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// typed runs a line on a terminal of 80 columns, and types keys as soon as it shows until. It returns what the terminal was sent.
func (s *shell) typed(t *testing.T, line, until, keys string) (code int, screen string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "exec "+line)
	cmd.Dir, cmd.Env = s.dir, s.env
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: cli.Width})
	must(t, err)
	defer terminal.Close()
	out := &watched{text: until, seen: make(chan struct{})}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(out, terminal) }) // ends with EIO when the command has
	if until != "" {
		select {
		case <-out.seen:
		case <-time.After(5 * time.Minute):
			t.Fatalf("%s does not show %q: %q", line, until, out)
		}
		_, err = terminal.WriteString(keys)
		must(t, err)
	}
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	must(t, err)
	reading.Wait()
	return code, out.String()
}

// On a terminal progress is a bar or a spinner on one line; Ctrl-C ends what waits at once, and leaves the terminal as it was.
func TestTerminal(t *testing.T) {
	t.Parallel()
	s := newServed(t)
	code, screen := s.typed(t, "ecr-mirror sync", "", "")
	if code != cli.OK || !strings.Contains(screen, "(1/1)") || !strings.Contains(screen, "add tag 1; 1 jobs") {
		t.Errorf("sync: exit code %d: %q", code, screen)
	}
	s.rig.seed("team/late", "v1", registrytest.Image(3, 1000))
	code, waiting := s.typed(t, "ecr-mirror ready team/late:v1", "ready at 0 of 1 destinations", "\x03")
	if code != cli.Interrupted || !strings.Contains(waiting, "ecr-mirror: team/late:v1: interrupted") {
		t.Errorf("ready, and Ctrl-C: exit code %d: %q", code, waiting)
	}
	code, dumb := s.typed(t, "env TERM=dumb ecr-mirror plan", "", "")
	if code != cli.OK || strings.Contains(strings.ReplaceAll(dumb, "\r\n", "\n"), "\r") {
		t.Errorf("TERM=dumb: exit code %d: %q", code, dumb)
	}
	if strings.Contains(screen+waiting+dumb, "\x1b") {
		t.Errorf("control sequences, which could hide the cursor or give colours: %q %q %q", screen, waiting, dumb)
	}
}

// Ctrl-C ends commands that ask registries, in the middle of a question.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	s := newServed(t)
	s.withoutMirror(t)
	for line, op := range map[string]string{"ecr-mirror plan": "DescribeImages", "ecr-mirror doctor": "DescribeRepositories", "ecr-mirror status team/app:v1": "BatchGetImage"} {
		asked := make(chan struct{})
		var once sync.Once
		s.rig.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op != op {
				return ecrtest.Fault{}
			}
			once.Do(func() { close(asked) })
			return ecrtest.Fault{Delay: 10 * time.Minute}
		})
		code, out, errs := s.told(t, line, "", asked)
		if code != cli.Interrupted || !strings.HasSuffix(errs, "interrupted\n") {
			t.Errorf("%s: exit code %d: %s%s", line, code, out, errs)
		}
	}
	s.rig.emu.Fault(nil)
}

// withoutMirror has the commands find no mirror, and a cache of their own.
func (s *shell) withoutMirror(t *testing.T) {
	t.Helper()
	s.write(t, "ecr-mirror.yaml", strings.NewReplacer("admin: "+s.rig.app.adminAddr.String(), "admin: 127.0.0.1:1", "{path: ", "{path: "+filepath.Join(s.dir, "own")+"/").Replace(s.yaml))
}

// What a command says, and with which exit code it ends, when it is used wrongly, when no mirror runs, and when there is something
// to find.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newServed(t)
	s.write(t, "bad.yaml", "listen: nowhere\nmirrors: []\n")
	s.write(t, "elsewhere.yaml", strings.Replace(s.yaml, "admin: "+s.rig.app.adminAddr.String(), "admin: 127.0.0.1:1", 1))
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"version --output json":                     {cli.OK, ""},
		"check --config none.yaml":                  {cli.Failed, "none.yaml: no such file"},
		"serve --config bad.yaml":                   {cli.Failed, "bad.yaml:1: "},
		"check --config bad.yaml":                   {cli.Found, "bad.yaml: 2 problems"},
		"check --config bad.yaml --output json":     {cli.Found, "bad.yaml: 2 problems"},
		"check --image Not/A/Name":                  {cli.Usage, "want REPOSITORY[:TAG]"},
		"serve --role janitor":                      {cli.Usage, "want all, front or worker"},
		"plan now":                                  {cli.Usage, `surplus argument "now" (see ecr-mirror plan --help)`},
		"plan --exit-code":                          {cli.Found, "1 jobs are left for sync"},
		"ready team/app:v1 --timeout 0s":            {cli.OK, ""},
		"ready team/other:v1 --timeout 0s":          {cli.NotYet, "not ready at 1 of 1 destinations"},
		"ready team/app":                            {cli.Usage, "no tag and no digest"},
		"ready team/app:v1 --timeout=-1s":           {cli.Usage, "want 0s or more"},
		"ready":                                     {cli.Usage, "REF is missing (see ecr-mirror ready --help)"},
		"status --limit 0":                          {cli.Usage, "want 1 or more"},
		"status team/app:v1 --state dead":           {cli.Usage, "leave them out with REF"},
		"status --config elsewhere.yaml":            {cli.Failed, "is in use by a process whose admin port is not 127.0.0.1:1: name that by --admin"},
		"sync --config elsewhere.yaml":              {cli.Failed, "name that by --admin"},
		"status --admin 127.0.0.1:1":                {cli.Failed, "no mirror listens on 127.0.0.1:1: start it"},
		"sync --admin nowhere":                      {cli.Usage, "--admin: "},
		"dead-letters list --config elsewhere.yaml": {cli.Failed, "no mirror listens on 127.0.0.1:1: start it"},
		"dead-letters show none":                    {cli.Failed, "not found"},
		"dead-letters drop":                         {cli.Usage, "or give --all"},
		"iam-policy --principal me":                 {cli.Usage, "want the ARN"},
		"client-config emacs":                       {cli.Usage, "want containerd, docker"},
		"fsck":                                      {cli.Failed, "another process uses this directory"},
		"doctor --config unreachable.yaml":          {cli.Found, "checks failed"},
	} {
		if strings.Contains(line, "unreachable") {
			s.write(t, "unreachable.yaml", strings.ReplaceAll(s.yaml, s.rig.emu.ControlURL(), "http://127.0.0.1:1"))
		}
		code, out, errs := s.do(t, "ecr-mirror "+line, "")
		if code != want.code || !strings.Contains(errs, want.says) || want.code > cli.Found && out != "" && !strings.HasPrefix(line, "ready") {
			t.Errorf("%s: exit code %d, want %d and %q:\n%s%s", line, code, want.code, want.says, out, errs)
		}
		if (want.code == cli.Failed || want.code == cli.Usage) && line != "fsck" && out != "" {
			t.Errorf("%s: not an answer on standard output: %s", line, out)
		}
	}
}
