package clientconfig

import (
	"bytes"
	"testing"
)

// Whatever stands in a client's file, adding a mirror twice is adding it once, and what is taken out is gone.
func FuzzMerge(f *testing.F) {
	for _, text := range []string{
		"", "{}", `{"registry-mirrors": ["https://other.example.com"], "debug": true}`, `{"registry-mirrors": null}`,
		"mirrors:\n  docker.io:\n    endpoint: [\"https://other.example.com\"]  # kept\nconfigs: {}\n", "mirrors: &a {x: *a}\n", "# nothing\n", "---\n---\n",
		"debug = true\n[registry.\"docker.io\"]\n  mirrors = [\"x\"]\n", "[[resolver.host.\"docker.io\".mirrors]]\nhost = \"x\"\n", begin + "\n" + end + "\n",
	} {
		f.Add([]byte(text))
	}
	m := Mirror{URL: "https://mirror.example.com:5000", Registries: []string{"111122223333.dkr.ecr.us-west-2.amazonaws.com", "docker.io"}, CA: "/etc/ca.crt"}
	f.Fuzz(func(t *testing.T, old []byte) {
		for _, c := range Clients() {
			if c.Files == nil {
				continue
			}
			for _, file := range c.Files(m) {
				added, err := file.Add(bytes.Clone(old))
				if err != nil {
					continue // not ours to mend
				}
				if again, err := file.Add(bytes.Clone(added)); err != nil || !bytes.Equal(again, added) {
					t.Fatalf("%s: added twice to %q: %q, %v; once: %q", c.Name, old, again, err, added)
				}
				removed, err := file.Remove(bytes.Clone(added))
				if err != nil {
					t.Fatalf("%s: remove from %q: %v", c.Name, added, err)
				}
				if again, err := file.Remove(bytes.Clone(removed)); err != nil || !bytes.Equal(again, removed) {
					t.Fatalf("%s: removed twice from %q: %q, %v; once: %q", c.Name, added, again, err, removed)
				}
			}
		}
	})
}
