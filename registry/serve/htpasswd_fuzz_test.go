package serve

import "testing"

// Whatever the file holds, users have names and hashes that do not take for ever.
func FuzzHtpasswd(f *testing.F) {
	f.Add([]byte("# users\n\nalice:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n"))
	f.Add([]byte("bob:$apr1$x$y\n"))
	f.Add([]byte(":$2a$31$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC"))
	f.Fuzz(func(t *testing.T, b []byte) {
		users, cost, err := parseHtpasswd(b)
		if (err == nil) != (len(users) > 0) || cost > maxCost {
			t.Errorf("%d users, cost %d: %v", len(users), cost, err)
		}
		for name, hash := range users {
			if name == "" || len(hash) == 0 {
				t.Errorf("user %q has %q", name, hash)
			}
		}
	})
}
