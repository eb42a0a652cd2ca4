package awstest

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// found reports whether a tool is there that no registry of CI has, so that its test is left out where it is not.
func found(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("left out: %s is not there; the schemas in testdata are what is checked", tool)
	}
	return path
}

// cfn-lint knows every resource type of every region, with its properties, and unrolls the loops.
func TestTemplatesLint(t *testing.T) {
	t.Parallel()
	lint := found(t, "cfn-lint")
	files, err := filepath.Glob(filepath.Join(templates, "*.yaml"))
	must(t, err)
	if len(files) < 3 {
		t.Fatalf("%v are all templates", files)
	}
	if out, err := exec.CommandContext(t.Context(), lint, append([]string{"--include-checks", "I", "--"}, files...)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
