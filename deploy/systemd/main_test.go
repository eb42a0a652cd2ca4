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
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
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

var build = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "ecr-mirror")
	return out, programs.Build(out, filepath.Join("..", ".."), "cmd/ecr-mirror")
})
