package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// scratch is a directory for what is built once.
var scratch string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if scratch, err = os.MkdirTemp("", "ecr-mirror-commands-"); err != nil {
			panic(err)
		}
		defer os.RemoveAll(scratch)
		return m.Run()
	}())
}

// built is the directory of the binary that users have.
var built = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(scratch, "ecr-mirror"), ".") // as the end-to-end tests do
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return scratch, nil
})

// An example is a line of a command's help, and how it is run here.
type example struct {
	in     string   // the world that it needs: alone, or served, where a mirror runs and has replicated team/app:v1
	change []string // pairs of texts: what stands for the first of them here
	letter bool     // there is a dead letter, whose ID the line has
	until  string   // it runs until it is told to end, which it is once it has printed this
	exit   int
}

const (
	alone  = ""
	served = "served"
)

// examples are all there are. An example that is not here fails, as does a line here that is no example.
func examples() map[string]example {
	someID, free, root := "0123456789abcdef", []string{"ecr-mirror demo", "ecr-mirror demo --listen 127.0.0.1:0"}, []string{"--install", "--install --root root", "--remove", "--remove --root root"}
	byID := []string{someID, "$LETTER"}
	return map[string]example{
		"ecr-mirror serve":                                      {until: "msg=serving"},
		"ecr-mirror serve --config eu.yaml":                     {until: "msg=serving"},
		"ecr-mirror serve --role worker":                        {until: "msg=serving"},
		"ecr-mirror demo":                                       {until: "Ctrl-C ends it", change: free},
		"ecr-mirror demo --once":                                {},
		"ecr-mirror emulator --registry 111122223333/us-west-2": {until: "accessKeyId"},
		"ecr-mirror emulator --registry 111122223333/us-west-2 --registry 111122223333/eu-central-1 --queue 111122223333/us-west-2/pushes": {until: "accessKeyId"},
		"ecr-mirror emulator --dir state --quotas --registry 111122223333/us-west-2":                                                       {until: "accessKeyId"},

		"ecr-mirror plan":                                    {in: served},
		"ecr-mirror plan --force --output json":              {in: served},
		"ecr-mirror plan --exit-code":                        {in: served, exit: cli.Found},
		"ecr-mirror sync":                                    {in: served},
		"ecr-mirror sync --force":                            {in: served},
		"ecr-mirror sync --output json >plan.jsonl":          {in: served, change: []string{">plan.jsonl", "| tee plan.jsonl"}},
		"ecr-mirror status team/app:v1":                      {in: served},
		"ecr-mirror status --state dead --output json":       {in: served},
		"ecr-mirror status --repository team/app --limit 20": {in: served},
		"ecr-mirror ready team/app:v1 --timeout 5m && kubectl rollout restart deployment/app": {in: served},
		"ecr-mirror ready team/app:v1 --timeout 0s --output json":                             {in: served},
		"ecr-mirror ready 111122223333.dkr.ecr.us-west-2.amazonaws.com/team/app:v1":           {in: served},
		"ecr-mirror dead-letters list":                                                        {in: served, letter: true},
		"ecr-mirror dead-letters list --admin 127.0.0.1:5001 --output json":                   {in: served, letter: true, change: []string{"127.0.0.1:5001", "$ADMIN"}},
		"ecr-mirror dead-letters show 0123456789abcdef":                                       {in: served, letter: true, change: byID},
		"ecr-mirror dead-letters retry 0123456789abcdef":                                      {in: served, letter: true, change: byID},
		"ecr-mirror dead-letters retry --all":                                                 {in: served, letter: true},
		"ecr-mirror dead-letters drop 0123456789abcdef":                                       {in: served, letter: true, change: byID},
		"ecr-mirror dead-letters drop --all --output json":                                    {in: served, letter: true},

		"ecr-mirror doctor": {in: served},
		"ecr-mirror doctor --repository team/app --output json": {in: served},
		"ecr-mirror fsck":                                       {},
		"ecr-mirror fsck --repair --rate 50MiB":                 {},
		"ecr-mirror fsck --path cache --output json":            {},
		"ecr-mirror version":                                    {},
		"ecr-mirror version --output json":                      {},
		"ecr-mirror check":                                      {},
		"ecr-mirror check --config eu.yaml --image team/app:v1": {},
		"ecr-mirror check --output json":                        {},
		"ecr-mirror iam-policy":                                 {},
		"ecr-mirror iam-policy --principal arn:aws:iam::444455556666:role/mirror": {},
		"ecr-mirror iam-policy --output json":                                     {},

		"ecr-mirror client-config containerd --config ecr-mirror.yaml":                                                                 {},
		"ecr-mirror client-config podman --mirror https://mirror.example:5000 --registry 111122223333.dkr.ecr.us-west-2.amazonaws.com": {},
		"ecr-mirror client-config containerd --config ecr-mirror.yaml --install":                                                       {change: root},
		"ecr-mirror client-config containerd --config ecr-mirror.yaml --remove":                                                        {change: root},
		"ecr-mirror client-config containerd --config ecr-mirror.yaml --install --hold":                                                {until: "written", change: root},

		"source <(ecr-mirror completion bash)":                                              {},
		"ecr-mirror completion bash >~/.local/share/bash-completion/completions/ecr-mirror": {},
		"ecr-mirror completion zsh >_ecr-mirror":                                            {},
		"ecr-mirror completion fish >~/.config/fish/completions/ecr-mirror.fish":            {},
	}
}

// Every example of every command's help does what it says.
func TestExamples(t *testing.T) {
	left := examples()
	var lines []string
	answer := make(map[string][]field)
	d := newDescriber(t)
	shapes := answers()
	commands(command(), func(cmd *cobra.Command) {
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if _, known := left[line]; !known {
				t.Errorf("%s has the example %q, which nobody runs: add it to the table in examples_test.go, with the world that it needs", nameOf(cmd), line)
				continue
			}
			delete(left, line)
			lines = append(lines, line)
			if strings.Contains(line, "--output json") || nameOf(cmd) == "emulator" {
				answer[line] = d.shape(reflect.TypeOf(shapes[nameOf(cmd)]), "")
			}
		}
	})
	for line := range left {
		t.Errorf("%q is no command's example: take it out of the table in examples_test.go", line)
	}
	all := examples()
	t.Run(served, func(t *testing.T) {
		t.Parallel()
		w := newServed(t)
		for _, line := range lines {
			if all[line].in == served {
				w.run(t, line, all[line], answer[line])
			}
		}
	})
	for _, line := range lines {
		if all[line].in != served {
			t.Run(line, func(t *testing.T) {
				t.Parallel()
				newAlone(t).run(t, line, all[line], answer[line])
			})
		}
	}
}

// shell is where a user types commands: a directory with configurations, and ecr-mirror in PATH.
type shell struct {
	dir  string
	env  []string
	yaml string // of the configurations
	rig  *rig   // nil: no mirror runs
}

// write writes a file of the user's.
func (s *shell) write(t *testing.T, name, text string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755))
}

// newShell returns one with that configuration.
func newShell(t *testing.T, yaml string) *shell {
	t.Helper()
	s := &shell{dir: t.TempDir(), yaml: yaml}
	ours, err := built()
	must(t, err)
	bin := filepath.Join(s.dir, "bin")
	for _, dir := range []string{bin, filepath.Join(s.dir, "root"), filepath.Join(s.dir, ".local/share/bash-completion/completions"), filepath.Join(s.dir, ".config/fish/completions")} {
		must(t, os.MkdirAll(dir, 0o755))
	}
	for name, text := range map[string]string{"bin/kubectl": "#!/bin/sh\n", "ecr-mirror.yaml": yaml, "eu.yaml": yaml} {
		s.write(t, name, text)
	}
	s.env = []string{"PATH=" + ours + ":" + bin + ":/usr/bin:/bin", "HOME=" + s.dir, "TERM=xterm", "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=" + demoSourceRegion, "TMPDIR=" + t.TempDir()}
	return s
}

// newAlone returns one where no mirror runs, and where an earlier one left an empty cache.
func newAlone(t *testing.T) *shell {
	t.Helper()
	s := newShell(t, `listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {path: cache, size: 1GiB}
mirrors:
- source:      {registry: `+demoSourceHost+`}
  destination: {registry: `+demoDestinationHost+`}
  replication: {sweep: 0s}
`)
	s.write(t, "clients.yaml", strings.Replace(s.yaml, "listen: 127.0.0.1:0\n", "", 1)) // clients are not told of any port
	store, err := storage.Open(storage.Options{Path: filepath.Join(s.dir, "cache"), Size: 1 << 30})
	must(t, err)
	must(t, store.Close())
	return s
}

// newServed returns one on the host of a mirror, which has replicated one image and lacks another.
func newServed(t *testing.T) *shell {
	t.Helper()
	r := newRig(t, "  replication: {sweep: 0s}\n")
	img := registrytest.Image(1, 1000)
	r.seed("team/app", "v1", img)
	must(t, r.pulled("team/app", "v1"))
	r.eventually("team/app:v1 at the destination", func() bool { return r.replicated("team/app", "v1", img) })
	r.seed("team/other", "v1", registrytest.Image(2, 1000))
	s := newShell(t, strings.Replace(r.yaml, "admin: 127.0.0.1:0", "admin: "+r.app.adminAddr.String(), 1))
	s.rig = r
	c, err := r.aws.Credentials.Retrieve(t.Context())
	must(t, err)
	s.env = append(s.env, "AWS_ENDPOINT_URL="+r.emu.ControlURL(), "AWS_ACCESS_KEY_ID="+c.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+c.SecretAccessKey)
	return s
}

// run runs a line, and looks at its exit code and at what it printed.
func (s *shell) run(t *testing.T, line string, e example, answer []field) {
	t.Helper()
	letter := ""
	if e.letter {
		key := replicate.Key{Mirror: demoSourceHost, Destination: ownName, Repo: "team/app", Tag: "v1"}
		s.rig.eventually("the retried job is done, or dead", func() bool {
			j, ok := s.rig.app.queue.Job(key)
			return !ok || j.State == replicate.Dead
		})
		if s.rig.app.queue.Pending().Dead == 0 {
			s.rig.kill("team/app", "v1")
		}
		letter = s.rig.listed()[0].ID
	}
	text := strings.NewReplacer(e.change...).Replace(line)
	if s.rig != nil {
		text = strings.NewReplacer("$LETTER", letter, "$ADMIN", s.rig.app.adminAddr.String()).Replace(text)
	}
	if strings.Contains(line, "client-config") {
		text = strings.Replace(text, "ecr-mirror.yaml", "clients.yaml", 1)
	}
	code, out, errs := s.do(t, text, e.until)
	if code != e.exit {
		t.Errorf("%s: exit code %d, want %d\n%s%s", text, code, e.exit, out, errs)
	}
	if strings.Contains(out+errs, "\x1b") || strings.Contains(errs, "\r") {
		t.Errorf("%s: control characters where there is no terminal: %q %q", text, out, errs)
	}
	if answer != nil {
		conforms(t, text, answer, out)
	}
}

// do runs a line in bash. With until it is told to end as soon as it has printed that.
func (s *shell) do(t *testing.T, line, until string) (code int, stdout, stderr string) {
	t.Helper()
	return s.told(t, line, until, nil)
}

// told is do for a line that is told to end also when a channel is closed, which may be nil.
func (s *shell) told(t *testing.T, line, until string, when <-chan struct{}) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	ends := until != "" || when != nil
	if ends {
		line = "exec " + line
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, errs := &watched{text: until, seen: make(chan struct{})}, &watched{text: until, seen: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var err error
	if ends {
		select {
		case <-when:
		case <-out.seen:
		case <-errs.seen:
		case err = <-ended:
			t.Fatalf("%s ended before it printed %q: %v\n%s%s", line, until, err, out, errs)
		}
		must(t, cmd.Process.Signal(syscall.SIGINT))
	}
	err = <-ended
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, err = exit.ExitCode(), nil
	}
	must(t, err)
	return code, out.String(), errs.String()
}

// watched is what a command prints, until and after it has printed text.
type watched struct {
	mu   sync.Mutex
	b    bytes.Buffer
	text string
	seen chan struct{} // closed when it has
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b.Write(p)
	if w.text != "" && strings.Contains(w.b.String(), w.text) {
		w.text = ""
		close(w.seen)
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// conforms looks whether every object in out has the fields that docs/commands.md tells of, and no other.
func conforms(t *testing.T, line string, answer []field, out string) {
	t.Helper()
	known := make(map[string]field)
	for _, f := range answer {
		known[f.path] = f
	}
	var look func(v any, at string)
	look = func(v any, at string) {
		switch v := v.(type) {
		case []any:
			for _, one := range v {
				look(one, at+"[]")
			}
		case map[string]any:
			prefix := ""
			if at != "" {
				if f := known[at]; f.kind != "object" { // a policy, or something by something
					return
				}
				prefix = at + "."
			}
			for name, one := range v {
				path := prefix + name
				if _, objects := known[path+"[]"]; !objects && known[path].kind == "" {
					t.Errorf("%s: %s is not in the reference", line, path)
				}
				look(one, path)
			}
			for path, f := range known {
				name, ok := strings.CutPrefix(path, prefix)
				if name = strings.TrimSuffix(name, "[]"); !ok || f.optional || strings.Contains(name, ".") || strings.Contains(name, "[]") {
					continue
				}
				if _, there := v[name]; !there {
					t.Errorf("%s: %s is missing", line, path)
				}
			}
		}
	}
	n := 0
	for in := json.NewDecoder(strings.NewReader(out)); ; n++ {
		var v any
		err := in.Decode(&v)
		if err == io.EOF {
			break
		}
		must(t, err)
		look(v, "")
	}
	if n == 0 && !strings.Contains(line, "dead-letters") {
		t.Errorf("%s: no answer", line)
	}
}
