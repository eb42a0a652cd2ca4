// Package docs holds the documents to what they say: links lead somewhere, tests that they name exist, configurations are
// accepted, and every command runs, block by block, as a reader would run it, in a world of its own.
//
// # Limitations
//
// Linux, as root; commands for a cluster, systemd and AWS services that the emulator has not are checked and not carried out.
package docs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// inside names the document that the process is to run, in namespaces of its own.
const inside = "DOCUMENT_INSIDE"

// Lines that the inner process prints for the outer one.
const (
	failed = "FAILED "
	off    = "OFF "
)

// patience is for one document.
const patience = 5 * time.Minute

// mostOff is how many blocks of all documents may be switched off, each with its reason.
const mostOff = 3

func TestMain(m *testing.M) {
	name := os.Getenv(inside)
	if name == "" {
		os.Exit(runAll(m))
	}
	if err := runInside(name, os.Getenv("DOCUMENT_DIR"), os.Getenv("DOCUMENT_BINARY")); err != nil {
		fmt.Printf("%s%s: %v\n", failed, name, err)
		os.Exit(1)
	}
}

// scratch is a directory for what is built once.
var scratch string

func runAll(m *testing.M) int {
	var err error
	if scratch, err = os.MkdirTemp("", "docs-"); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		return 1
	}
	defer os.RemoveAll(scratch)
	return m.Run()
}

// runInside is the process in the world of one document.
func runInside(name, dir, binary string) error {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return err
	}
	d, err := parseDocument(name, string(text))
	if err != nil {
		return err
	}
	repository, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	w := &world{dir: dir}
	if err := w.setUp(binary, repository); err != nil {
		return fmt.Errorf("the world: %w", err)
	}
	for _, b := range d.blocks {
		if why, is := strings.CutPrefix(b.note, "off, because "); is {
			fmt.Printf("%s%s:%d: %s\n", off, name, b.line, why)
		} else if err := w.run(d, b); err != nil {
			fmt.Printf("%s%s:%d: %s\n", failed, name, b.line, strings.ReplaceAll(err.Error(), "\n", "\n\t"))
		}
	}
	return nil
}

// Every command of every document runs, and every configuration is accepted.
func TestDocuments(t *testing.T) {
	binary := build(t)
	offs := make(chan int, 100)
	t.Run("of", func(t *testing.T) {
		for _, d := range documents(t) {
			if len(d.blocks) == 0 {
				continue
			}
			t.Run(strings.ReplaceAll(d.path, "/", "_"), func(t *testing.T) {
				t.Parallel()
				problems, n := runDocument(t, d, binary)
				if problems != "" {
					t.Error(problems)
				}
				offs <- n
			})
		}
	})
	close(offs)
	sum := 0
	for n := range offs {
		sum += n
	}
	if sum > mostOff {
		t.Errorf("%d blocks are switched off, more than %d", sum, mostOff)
	}
}

// Each kind of mistake is found where it is.
func TestMistakes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("testdata", "mistakes.md"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := parseDocument("docs/testdata/mistakes.md", string(text))
	if err != nil {
		t.Fatal(err)
	}
	problems, offs := runDocument(t, d, build(t))
	right := 0
	for _, b := range d.blocks {
		at := fmt.Sprintf("%s:%d: ", d.path, b.line)
		if strings.Contains(b.text, "right") {
			right++
			if strings.Contains(problems, at) {
				t.Errorf("%s is not a mistake", at)
			}
		} else if !strings.Contains(problems, at) {
			t.Errorf("%snot found: %s", at, b.text)
		}
	}
	if offs != 1 || right < 3 {
		t.Errorf("%d blocks are off and %d right", offs, right)
	}
	if t.Failed() {
		t.Log(problems)
	}
}

// Options that the text names between backticks, alone or after a command of ecr-mirror, exist.
func TestOptionsInText(t *testing.T) {
	t.Parallel()
	binary, known, options := build(t), make(map[string]bool), make(map[string]bool)
	var learn func(command ...string)
	learn = func(command ...string) {
		help, err := exec.Command(binary, append(command, "--help")...).Output()
		if err != nil && len(command) < 2 {
			t.Fatalf("%v --help: %v", command, err)
		}
		for _, flag := range optionRE.FindAllString(string(help), -1) {
			options[flag] = true
		}
		for _, name := range regexp.MustCompile(`(?m)^  ([a-z]+(?:-[a-z]+)*) +[A-Z]`).FindAllStringSubmatch(string(help), -1) {
			switch len(command) {
			case 0:
				known[name[1]] = true
				learn(name[1])
			case 1: // it may be a sentence, and then there is no such command
				learn(command[0], name[1])
			}
		}
	}
	learn()
	checked := 0
	for _, d := range documents(t) {
		for _, l := range d.prose {
			for _, m := range regexp.MustCompile("`(?:(?:bin/)?ecr-mirror )?([^`]*)`").FindAllStringSubmatch(l.text, -1) {
				first, _, _ := strings.Cut(m[1], " ")
				if !known[first] && !strings.HasPrefix(first, "--") {
					continue // another program's
				}
				for _, flag := range optionRE.FindAllString(m[1], -1) {
					if checked++; !options[flag] {
						t.Errorf("%s:%d: no command has %s", d.path, l.n, flag)
					}
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("the documents name %d options only", checked)
	}
}

var optionRE = regexp.MustCompile(`--[a-z][a-z-]*`)

// build returns the binary that the documents are about. Worlds need root, and the programs that documents use.
func build(t *testing.T) string {
	t.Helper()
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, name := range append(wrapped, "curl", "jq", "openssl") {
		if find(name) == "" {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) > 0 && os.Getenv("CI") == "true":
		t.Fatalf("%v: needed in CI", missing)
	case len(missing) > 0:
		t.Skipf("needs %v, which are not there", missing)
	}
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

var built = sync.OnceValues(func() (string, error) {
	binary := filepath.Join(scratch, "ecr-mirror")
	return binary, programs.Build(binary, root, "cmd/ecr-mirror")
})

// runDocument runs d in a world of its own, and returns what is wrong with it and how many of its blocks are switched off.
func runDocument(t *testing.T, d document, binary string) (problems string, offs int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "docs-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), inside+"="+d.path, "DOCUMENT_DIR="+dir, "DOCUMENT_BINARY="+binary)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // the child dies with the thread that started it
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		switch l := lines.Text(); {
		case strings.HasPrefix(l, off):
			t.Log("not run: " + strings.TrimPrefix(l, off))
			offs++
		case strings.HasPrefix(l, failed):
			problems += strings.TrimPrefix(l, failed) + "\n"
		case problems != "":
			problems += l + "\n"
		}
	}
	if err != nil && problems == "" {
		problems = fmt.Sprintf("%v\n%s", err, out)
	}
	return problems, offs
}
