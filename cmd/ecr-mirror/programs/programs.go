// Package programs has what tests drive: programs that are installed, and those of this module, built as they are released.
//
// Limitations: a release's version is not built in.
package programs

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Need skips the test when a program is not installed, and fails it in CI, where all have to be. "root" is not a program but
// who runs the test.
func Need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		missing := false
		if name == "root" {
			missing = os.Geteuid() != 0
		} else if _, err := exec.LookPath(name); err != nil {
			missing = true
		}
		switch {
		case missing && os.Getenv("CI") == "true":
			t.Fatalf("%s is needed in CI", name)
		case missing:
			t.Skipf("needs %s, which is not there", name)
		}
	}
}

// Build builds the file out from a package of the module in the directory root: a static binary, with env in the environment
// of its build. The go command remembers what a test opened: it runs the tests of the caller's package again when any source
// changed, though none of them imports it. It remembers nothing from before [testing.M.Run].
func Build(out, root, pkg string, env ...string) error {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
	if err != nil {
		return err
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./"+pkg)
	cmd.Dir, cmd.Env = root, append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
	}
	return nil
}
