package ecrtest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The SDK's module carries a request and an answer of every operation, with every member: names that AWS's model has and no others.

func snapshots(t *testing.T, pattern string) map[string]string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/ecr").Output()
	if err != nil {
		t.Fatalf("find the SDK's module: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), pattern))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d snapshots of %s: %v", len(files), pattern, err)
	}
	all := map[string]string{}
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		all[name] = f
	}
	return all
}

func lastLine(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b[bytes.LastIndexByte(b, '\n')+1:]
}

// Every operation of the SDK is there, and takes every member of its request.
func TestRequestSnapshots(t *testing.T) {
	ops := operations()
	for name, file := range snapshots(t, "request_snapshot/*.request.snap") {
		o, known := ops[name]
		if !known {
			t.Errorf("no operation %s", name)
			continue
		}
		delete(ops, name)
		var members map[string]json.RawMessage
		if err := json.Unmarshal(lastLine(t, file), &members); err != nil {
			t.Fatal(name, err)
		}
		delete(members, "registryId") // read by target
		body, _ := json.Marshal(members)
		dec := json.NewDecoder(bytes.NewReader(body))
		dec.DisallowUnknownFields()
		if err := dec.Decode(o.input()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range ops {
		t.Errorf("%s is an operation that the SDK does not have", name)
	}
}
