// Package helm tests the chart: linted, rendered and refused with helm; installed, upgraded and uninstalled with it in a real
// kube-apiserver; its pods run by runc as their specifications say, with the built binary.
//
// A tool that is not installed skips its tests; with CI=true it fails them.
//
// # Limitations
//
// There is no kubelet and no controller: nothing is scheduled, and no network policy is enforced. Seccomp profiles and limits of
// resources are not applied to the pods that run.
package helm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

const chart = "ecr-mirror"

// scratch is a directory for what is built once; TestMain makes and removes it.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "ecr-mirror-helm-"); err != nil {
		fmt.Fprintln(os.Stderr, "helm:", err)
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

// binary returns the path of the ecr-mirror under test.
func binary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// try runs a command to its end and returns what it printed.
func try(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.WaitDelay = 5 * time.Second
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}

// run is try for what has to succeed.
func run(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	out, err := try(t, env, name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// object is a Kubernetes object, or a part of one.
type object map[string]any

// at returns what is at a path of keys, or nil.
func (o object) at(path ...string) any {
	var v any = o
	for _, key := range path {
		switch m := v.(type) {
		case object:
			v = m[key]
		case map[string]any:
			v = m[key]
		default:
			return nil
		}
	}
	return v
}

func (o object) text(path ...string) string { s, _ := o.at(path...).(string); return s }

func (o object) child(path ...string) object {
	if m, ok := o.at(path...).(object); ok {
		return m
	}
	m, _ := o.at(path...).(map[string]any)
	return m
}

func (o object) list(path ...string) (all []object) {
	items, _ := o.at(path...).([]any)
	for _, item := range items {
		switch m := item.(type) {
		case object:
			all = append(all, m)
		case map[string]any:
			all = append(all, m)
		}
	}
	return all
}

func (o object) strings(path ...string) (all []string) {
	items, _ := o.at(path...).([]any)
	for _, item := range items {
		all = append(all, fmt.Sprint(item))
	}
	return all
}

func (o object) name() string { return o.text("kind") + "/" + o.text("metadata", "name") }

// template is the pod template of a workload, or nil.
func (o object) template() object {
	if o.text("kind") == "CronJob" {
		return o.child("spec", "jobTemplate", "spec", "template")
	}
	return o.child("spec", "template")
}

// render has helm make the objects of a release called mirror.
func render(t *testing.T, args ...string) []object {
	t.Helper()
	programs.Need(t, "helm")
	return parse(t, run(t, nil, "helm", append([]string{"template", "mirror", chart, "--namespace", "mirrors"}, args...)...))
}

func parse(t *testing.T, text string) (all []object) {
	t.Helper()
	for dec := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o object
		switch err := dec.Decode(&o); {
		case err == io.EOF:
			return all
		case err != nil:
			t.Fatalf("%v\n%s", err, text)
		case o != nil:
			all = append(all, o)
		}
	}
}

// find returns the object of that KIND/NAME.
func find(t *testing.T, all []object, name string) object {
	t.Helper()
	for _, o := range all {
		if o.name() == name {
			return o
		}
	}
	t.Fatalf("no %s", name)
	return nil
}

// cases are the values under ci: NAME-values.yaml, by name.
func cases(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart, "ci", "*-values.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	all := make(map[string]string)
	for _, f := range files {
		all[strings.TrimSuffix(filepath.Base(f), "-values.yaml")] = f
	}
	return all
}
