package config_test

import (
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/config"
)

func TestAdminAuth(t *testing.T) {
	for _, tc := range []struct{ yaml, problem string }{
		{"adminAuth: {htpasswd: f}", ""},
		{"admin: localhost:5001\nadminAuth: {htpasswd: f}", ""},
		{"admin: 0.0.0.0:5001\nadminAuth: {htpasswd: f, insecure: true}", ""},
		{"admin: 0.0.0.0:5001", ""}, // reading is for everybody, and nobody else may change anything
		{"admin: 0.0.0.0:5001\nadminAuth: {htpasswd: f}", "adminAuth: passwords come over plain HTTP to 0.0.0.0:5001"},
		{"adminAuth: {insecure: true}", "adminAuth.insecure: is for htpasswd"},
	} {
		_, err := config.Parse("c.yaml", []byte(tc.yaml+"\nmirrors:\n- source: {registry: example.com}\n"), env(nil))
		if tc.problem == "" && err != nil || tc.problem != "" && (err == nil || !strings.Contains(err.Error(), tc.problem)) {
			t.Errorf("%q: %v, want %q", tc.yaml, err, tc.problem)
		}
	}
}
