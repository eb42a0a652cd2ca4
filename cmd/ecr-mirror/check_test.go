package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

func TestCheckImage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(path, []byte(`
mirrors:
- source: {registry: a.example.com}
  destination: {registry: b.example.com}
  replication:
    destinations: all
    registries: [{registry: c.example.com}]
    rules:
    - {repositories: [team/**], tags: ["semver:>=2"], platforms: [linux/arm64, linux/amd64], rename: {from: team/, to: ""}}
    - {repositories: [app], tags: ["v*"]}
    - {repositories: ["**"], destinations: [c.example.com]}
- {source: {registry: d.example.com}}
`), 0o600))
	check := func(image string) (string, error) {
		cmd := checkCommand()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetArgs([]string{"--config", path, "--image", image})
		err := cmd.Execute()
		return out.String(), err
	}
	for image, want := range map[string]string{
		"team/app:v2.1.0": "copied as app, of an index only linux/amd64,linux/arm64; copied",
		"team/app:v1.0.0": "not copied: no rule wants it; copied",
		"team/app":        "copied if it is about an image that is there; copied",
		"app:v1":          "not copied: its name there is that of team/app; copied",
		"other:v1":        "not copied: its name there is that of team/other; copied",
	} {
		here, there, _ := strings.Cut(want, "; ")
		want = "mirror of [a.example.com b.example.com]\n  b.example.com: " + here + "\n  c.example.com: " + there + "\nmirror of [d.example.com]\n"
		got, err := check(image)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", image, err, diff)
		}
	}
	if _, err := check("Not/A/Name"); err == nil {
		t.Error("a name that is none: no error")
	}
}

// What is allowed and perhaps not meant is a note on standard error, and no failure.
func TestCheckNotes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.yaml")
	for yaml, want := range map[string]string{
		"{source: {registry: a.example.com}}": "",
		"{source: {registry: a.example.com}, destination: {registry: b.example.com}, replication: {sweep: 1h}}":                        "",
		"{source: {registry: a.example.com}, destination: {registry: b.example.com}, replication: {sweep: 0s}}":                        "note: mirrors[0]: no events and no sweep: only what is pulled is replicated\n",
		"{source: {registry: a.example.com}, destination: {registry: b.example.com}, replication: {sweep: 0s}, events: {sqs: $QUEUE}}": "note: mirrors[0]: no sweep: what events lose is found by nobody, unless sync runs now and then\n",
	} {
		yaml = strings.Replace(yaml, "$QUEUE", "https://sqs.us-west-2.amazonaws.com/111122223333/pushes", 1)
		must(t, os.WriteFile(path, []byte("mirrors: ["+yaml+"]\n"), 0o600))
		var out, errs bytes.Buffer
		cmd := command()
		cmd.SetArgs([]string{"check", "--config", path})
		cmd.SetOut(&out)
		cmd.SetErr(&errs)
		if code := cli.Run(t.Context(), cmd); code != cli.OK || errs.String() != want || strings.Contains(out.String(), "note") {
			t.Errorf("%s: exit code %d, %q, want %q", yaml, code, &errs, want)
		}
	}
}
