package mem_test

import (
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestSuite(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(map[bool]string{false: "creates", true: "strict"}[strict], func(t *testing.T) {
			registrytest.Run(t, func(*testing.T) registrytest.Subject {
				r := mem.New()
				r.StrictRepos = strict
				return registrytest.Subject{Reader: r, Writer: r, Lister: r, StrictRepos: strict, EmptyBlobs: true}
			})
		})
	}
}
