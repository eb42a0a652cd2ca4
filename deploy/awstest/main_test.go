// Package awstest tests what deploy/ has for AWS: the CloudFormation templates, the Terraform modules and the ECS task
// definitions. They are rendered and checked against AWS's limits, their policies are compared with those that `ecr-mirror
// iam-policy` prints, and they are applied to the emulator, with IAM enforced, where mirrors then run under the rendered roles.
//
// # Limitations
//
// AWS itself has seen none of it. What is always checked is names and, of CloudFormation, values, by the schemas in testdata:
// those of AWS's resource types and of Terraform's AWS provider. cfn-lint and Terraform with that provider come from no registry
// that CI has; without them nothing resolves the references in the modules or compares what the two make.
package awstest

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// scratch is a directory for what is built once; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "ecr-mirror-awstest-"); err != nil {
		fmt.Fprintln(os.Stderr, "awstest:", err)
		os.Exit(1)
	}
	status := m.Run()
	_ = os.RemoveAll(scratch) // nobody needs it any more
	if status == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// binary returns the path of the ecr-mirror under test.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var build = sync.OnceValues(func() (string, error) {
	out := filepath.Join(scratch, "ecr-mirror")
	return out, programs.Build(out, filepath.Join("..", ".."), "cmd/ecr-mirror")
})

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
