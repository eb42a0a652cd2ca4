// Package e2e drives the built binary with real clients: docker 20.10 and 29, containerd 1.6 and 2.3, podman, buildah, skopeo,
// buildkit, crane, regctl, helm, oras-go, Amazon's docker-credential-ecr-login, Debian's docker-registry, nginx, the AWS CLI
// and strace. Every daemon is private to its test: its own directory, socket and loopback port.
//
// A client that is not installed skips its tests; with CI=true it fails them.
//
// # Limitations
//
// Linux only. Tests that start dockerd, containerd or podman, or attach strace, need root.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// scratch is a directory for what is built once; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "ecr-mirror-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch) // nobody needs it any more
	os.Exit(status)
}

// binary returns the path of the ecr-mirror under test.
func binary(t *testing.T) string { return built(t, buildBinary) }

// raceBinary is binary, built with the race detector.
func raceBinary(t *testing.T) string { return built(t, buildRaceBinary) }

// hello returns the path of the program in the images of an architecture.
func hello(t *testing.T, arch string) string {
	return filepath.Join(built(t, buildHello), "hello-"+arch)
}

func built(t *testing.T, build func() (string, error)) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// root is the repository.
const root = "../../.."

var buildBinary = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "ecr-mirror")
	return out, programs.Build(out, root, "cmd/ecr-mirror")
})

// Without -trimpath it finds in Go's build cache what go test -race compiled.
var buildRaceBinary = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "ecr-mirror-race")
	if msg, err := exec.Command("go", "build", "-race", "-o", out, "..").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build with the race detector: %w\n%s", err, msg)
	}
	return out, nil
})

var buildHello = sync.OnceValues(func() (string, error) {
	for _, arch := range []string{"amd64", "arm64"} {
		if err := programs.Build(filepath.Join(scratch, "hello-"+arch), root, "cmd/ecr-mirror/e2e/testdata/hello", "GOOS=linux", "GOARCH="+arch); err != nil {
			return "", err
		}
	}
	return scratch, nil
})
