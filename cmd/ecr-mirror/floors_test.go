package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// floors is the architecture: a package imports only packages on a floor above it (a smaller number). Tests may also use
// what stands on their own floor or exists for tests.
var floors = [][]string{
	0: {"registry", "storage/durable", "replicate/rules", "registry/ecr/iam"},
	1: {"config", "cmd/ecr-mirror/cli", "cmd/ecr-mirror/clientconfig", "cmd/ecr-mirror/admin/browser", "cmd/ecr-mirror/programs", "registry/wire", "registry/mem", "registry/mirror", "registry/registrytest", "storage", "replicate", "replicate/presence", "replicate/settings"},
	2: {"registry/serve", "registry/remote", "registry/ecr", "replicate/events"},
	3: {"registry/ecr/ecrtest", "cmd/ecr-mirror/admin", "cmd/ecr-mirror/trace"},
	4: {"deploy/helm", "deploy/systemd", "cmd/ecr-mirror", "cmd/ecr-mirror/e2e", "cmd/ecr-mirror/bench", "docs", "deploy/awstest", "deploy/monitoring"},
}

// testsOnly are imported by tests alone.
var testsOnly = []string{"registry/registrytest", "cmd/ecr-mirror/admin/browser", "cmd/ecr-mirror/programs"}

const module = "github.com/ecr-mirror/ecr-mirror/"

func TestFloors(t *testing.T) {
	floor := make(map[string]int)
	for n, packages := range floors {
		for _, p := range packages {
			floor[p] = n
		}
	}
	root := filepath.Join("..", "..")
	seen := make(map[string]bool)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") && name != ".." || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(rel)
		own, known := floor[pkg]
		if !known {
			t.Errorf("%s: package %s has no floor", path, pkg)
			return nil
		}
		seen[pkg] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			name, ours := strings.CutPrefix(imported, module)
			if !ours {
				continue
			}
			n, known := floor[name]
			switch {
			case !known:
				t.Errorf("%s imports %s, which has no floor", path, name)
			case strings.HasSuffix(path, "_test.go"):
			case n >= own:
				t.Errorf("%s (floor %d) imports %s (floor %d)", path, own, name, n)
			case slices.Contains(testsOnly, name) && !slices.Contains(testsOnly, pkg):
				t.Errorf("%s imports %s, which is for tests", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for p := range floor {
		if !seen[p] {
			t.Errorf("package %s has a floor but no files", p)
		}
	}
}
