package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// fsckOf runs the command as main does.
func fsckOf(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := command()
	cmd.SetArgs(append([]string{"fsck"}, args...))
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	code = cli.Run(t.Context(), cmd)
	t.Logf("fsck %q: exit %d\n%s%s", args, code, &stdout, &stderr)
	return code, stdout.String()
}

// The cache of a mirror that has pulled is sound; a byte that rots is found, and repaired by fetching it again.
func TestFsck(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Image(1, 100000)
	r.seed("app", "v1", img)
	must(t, r.pulled("app", "v1"))
	file := filepath.Join(t.TempDir(), "ecr-mirror.yaml")
	must(t, os.WriteFile(file, []byte(r.yaml), 0o600))
	cfg, err := config.Load(file)
	must(t, err)
	dir := cfg.Cache.Path
	if code, _ := fsckOf(t, "--path", dir); code != cli.Failed {
		t.Errorf("exit %d for a cache in use, want %d", code, cli.Failed)
	}
	copied := filepath.Join(t.TempDir(), "cache") // as a mirror leaves it that was killed
	r.eventually("three objects in the cache", func() bool {
		must(t, os.RemoveAll(copied))
		must(t, os.CopyFS(copied, os.DirFS(dir)))
		report, err := storage.Check(t.Context(), storage.CheckOptions{Path: copied})
		return err == nil && report.Objects == 3 && report.Problems == 0
	})
	if code, out := fsckOf(t, "--path", copied, "--rate", "1GiB"); code != 0 || !strings.Contains(out, "3 objects, ") {
		t.Errorf("sound: exit %d, %s", code, out)
	}

	layer := img.Blobs[len(img.Blobs)-1].Desc.Digest
	path := filepath.Join(copied, "blobs", "sha256", layer.Encoded()[:2], layer.Encoded())
	content, err := os.ReadFile(path)
	must(t, err)
	content[7]++
	must(t, os.WriteFile(path, content, 0o600))
	if code, out := fsckOf(t, "--path", copied); code != cli.Found || !strings.Contains(out, "corrupt: blobs/sha256/") {
		t.Errorf("rotten: exit %d, %s", code, out)
	}
	code, out := fsckOf(t, "--path", copied, "--output", "json")
	var answer fsckAnswer
	must(t, json.Unmarshal([]byte(out), &answer))
	if code != cli.Found || len(answer.Found) != 1 || answer.Found[0].Digest != layer || answer.Problems != 1 || answer.Objects != 2 {
		t.Errorf("rotten: exit %d, %+v", code, answer)
	}
	if code, out := fsckOf(t, "--path", copied, "--repair"); code != 0 || !strings.Contains(out, "repaired: corrupt: ") {
		t.Errorf("repaired: exit %d, %s", code, out)
	}
	if code, out := fsckOf(t, "--path", copied); code != 0 || !strings.Contains(out, "2 objects, ") {
		t.Errorf("after the repair: exit %d, %s", code, out)
	}
}

func TestFsckCannotCheck(t *testing.T) {
	for _, tc := range []struct {
		want int
		args []string
	}{
		{cli.Failed, []string{"--path", filepath.Join(t.TempDir(), "absent")}},
		{cli.Failed, []string{"--config", filepath.Join(t.TempDir(), "absent.yaml")}},
		{cli.Usage, []string{"--path", t.TempDir(), "--rate", "fast"}},
		{cli.Usage, []string{"--path", t.TempDir(), "--config", "absent.yaml"}},
	} {
		if code, _ := fsckOf(t, tc.args...); code != tc.want {
			t.Errorf("%q: exit %d, want %d", tc.args, code, tc.want)
		}
	}
}
