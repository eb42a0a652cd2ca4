package config_test

import (
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/config"
)

// A role is refused where the process could not do what it asks for, in the file at its line and by a flag.
func TestRoles(t *testing.T) {
	const (
		alone   = "mirrors:\n- source: {registry: a.example.com}\n"
		pair    = alone + "  destination: {registry: b.example.com}\n"
		queued  = pair + "  events: {sqs: https://sqs.example.com/111122223333/q}\n"
		unasked = pair + "  replication: {onMiss: false}\n"
	)
	for name, tc := range map[string]struct {
		role, yaml string
		want       string // in the error
	}{
		"front of a cache":          {"front", alone, ""},
		"front with a queue":        {"front", queued, ""},
		"front that reports nobody": {"front", unasked, ""},
		"front without a queue":     {"front", pair, "mirrors[0].events.sqs: a front hands what it misses"},
		"worker":                    {"worker", pair, ""},
		"worker without work":       {"worker", alone, "role: a worker replicates"},
		"all":                       {"all", pair, ""},
		"unknown":                   {"boss", pair, `role: "boss": want all or front or worker`},
	} {
		t.Run(name, func(t *testing.T) {
			judge := func(err error, want string) {
				t.Helper()
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want %q", err, want)
				}
			}
			_, err := config.Parse("c.yaml", []byte("role: "+tc.role+"\n"+tc.yaml), env(nil))
			judge(err, tc.want)
			if tc.want != "" && !strings.HasPrefix(err.Error(), "c.yaml:") {
				t.Errorf("no line in %v", err)
			}
			cfg, err := config.Parse("c.yaml", []byte(tc.yaml), env(nil))
			if err != nil {
				t.Fatal(err)
			}
			judge(cfg.As(tc.role), tc.want)
			if tc.want == "" && (cfg.Fronts() != (tc.role != "worker") || cfg.Works() != (tc.role != "front")) {
				t.Errorf("%s: fronts %v, works %v", tc.role, cfg.Fronts(), cfg.Works())
			}
		})
	}
}

// Workers take blobs through the fronts; a process that is both would ask itself.
func TestFronts(t *testing.T) {
	const pair = "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  events: {sqs: https://sqs.example.com/111122223333/q}\n"
	cfg, err := config.Parse("c.yaml", []byte(pair+"  names: [b.example.com, own.example.com]\n  replication: {fronts: {registry: lb.example.com}}\n"), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	if f := cfg.Mirrors[0].Replication.Fronts; f.NS != "own.example.com" {
		t.Errorf("ns %s", f.NS)
	}
	for role, ok := range map[string]bool{"all": false, "front": true, "worker": true} {
		if err := cfg.As(role); err != nil {
			t.Fatal(err)
		}
		if err := cfg.Serving(); (err == nil) != ok {
			t.Errorf("%s: %v", role, err)
		}
	}
	for _, fronts := range []string{"{}", "{registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}", "{registry: 'http://lb.example.com'}"} {
		_, err := config.Parse("c.yaml", []byte(pair+"  replication: {fronts: "+fronts+"}\n"), env(nil))
		if err == nil || !strings.Contains(err.Error(), "replication.fronts") {
			t.Errorf("%s: %v", fronts, err)
		}
	}
}
