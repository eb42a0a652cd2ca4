// Package systemd tests the unit: verified, rated, and started by a real systemd, the first process of namespaces of its own.
//
// A tool that is not installed skips its tests; with CI=true it fails them.
//
// # Limitations
//
// The kernel is this machine's, and so are its control groups: limits of resources beyond files are not tested.
package systemd

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// scratch is a directory for what is built once; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "ecr-mirror-systemd-"); err != nil {
		fmt.Fprintln(os.Stderr, "systemd:", err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch) // nobody needs it any more
	os.Exit(status)
}

// need skips the test when a tool is not installed, and fails it in CI, where all have to be.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		missing := false
		if tool == "root" {
			missing = os.Geteuid() != 0
		} else if _, err := exec.LookPath(tool); err != nil {
			missing = true
		}
		switch {
		case missing && os.Getenv("CI") == "true":
			t.Fatalf("%s is needed in CI", tool)
		case missing:
			t.Skipf("needs %s, which is not there", tool)
		}
	}
}

var build = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "ecr-mirror")
	// The go command remembers what a test opened, and so runs these tests again when the source of the binary changed.
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "../../cmd/ecr-mirror")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, msg)
	}
	return out, nil
})
