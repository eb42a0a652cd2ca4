// Package e2e drives the built binary with real clients: docker, containerd, podman, skopeo, crane, Debian's docker-registry,
// the AWS CLI and strace. Every daemon is private to its test: its own directory, socket and loopback port.
//
// A client that is not installed skips its tests; with CI=true it fails them.
//
// # Limitations
//
// Linux only. Tests that start dockerd, containerd or podman, or attach strace, need root.
package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is the ecr-mirror under test and hello the program in the images, by architecture; TestMain builds them.
var (
	binary string
	hello  map[string]string
)

func TestMain(m *testing.M) {
	status, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "ecr-mirror-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the temporary directory of a finished run
	if err := readSources(filepath.Join("..", "..", "..")); err != nil {
		return 0, err
	}
	binary = filepath.Join(dir, "ecr-mirror")
	if err := build(binary, "..", ""); err != nil {
		return 0, err
	}
	hello = make(map[string]string)
	for _, arch := range []string{"amd64", "arm64"} {
		hello[arch] = filepath.Join(dir, "hello-"+arch)
		if err := build(hello[arch], "./testdata/hello", arch); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

func build(out, pkg, arch string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if arch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+arch, "GOOS=linux")
	}
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, msg)
	}
	return nil
}

// readSources lists every source directory. The go command remembers what a test opened, and so runs these tests again when
// the source of the binary changed, though no package here imports it.
func readSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") && d.Name() != ".." || d.Name() == "bin") {
			return filepath.SkipDir
		}
		return err
	})
}
