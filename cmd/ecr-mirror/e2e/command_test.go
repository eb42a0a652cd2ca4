package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fails runs the binary, which has to end with status 1 (check, which has found something, with 3), and returns what it printed.
func fails(t *testing.T, args ...string) string {
	t.Helper()
	out, err := try(t, nil, binary(t), args...)
	if err == nil {
		t.Fatalf("ecr-mirror %s succeeded:\n%s", strings.Join(args, " "), out)
	}
	want := 1
	if args[0] == "check" {
		want = 3
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		t.Errorf("ecr-mirror %s: %v, want exit status %d", strings.Join(args, " "), err, want)
	}
	if strings.Contains(out, "goroutine ") {
		t.Errorf("ecr-mirror %s panicked:\n%s", strings.Join(args, " "), out)
	}
	return out
}

func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "config.yaml")
	write(t, config, `listen: 127.0.0.1:0
nonsense: true
cache: {path: /var/lib/ecr-mirror, size: huge}
mirrors:
- source: {registry: "http://registry.example.com"}
  tags: {ttl: never}
`)
	for _, args := range [][]string{{"serve", "--config", config}, {"check", "--config", config}} {
		out := fails(t, args...)
		for _, want := range []string{"nonsense", "huge", "never", "insecure"} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no word of %q in:\n%s", args[0], want, out)
			}
		}
		for _, line := range []string{"2", "3", "6"} {
			if !strings.Contains(out, "line "+line) && !strings.Contains(out, ":"+line+":") {
				t.Errorf("%s: no line %s in:\n%s", args[0], line, out)
			}
		}
	}
}

func TestUnwritableCache(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "no directory")
	config := filepath.Join(dir, "config.yaml")
	write(t, config, "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nauth: {none: true}\ncache: {path: "+filepath.Join(file, "cache")+", size: 1GiB}\nmirrors:\n"+
		plain(registryName, "127.0.0.1:1", ""))
	if out := fails(t, "serve", "--config", config); !strings.Contains(out, file) {
		t.Errorf("no word of %s in:\n%s", file, out)
	}
}

// Two processes on one cache directory would spoil each other's accounts.
func TestCacheInUse(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, plain(registryName, freeAddr(t), ""))
	text, err := os.ReadFile(m.config)
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "config.yaml")
	write(t, second, strings.NewReplacer(m.addr, "127.0.0.1:0", m.admin, "127.0.0.1:0").Replace(string(text)))
	if out := fails(t, "serve", "--config", second); !strings.Contains(out, filepath.Dir(m.config)) {
		t.Errorf("no word of the directory in:\n%s", out)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	m := startMirror(t, nil, plain(registryName, freeAddr(t), ""))
	run(t, nil, binary(t), "check", "--config", m.config)
	if out := run(t, nil, binary(t), "version"); !strings.HasPrefix(out, "ecr-mirror ") {
		t.Errorf("version: %q", out)
	}
	run(t, nil, binary(t), "demo", "--once")
}
