package clientconfig_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/clientconfig"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	ecr   = "111122223333.dkr.ecr.us-west-2.amazonaws.com"
	other = "registry.example.com:5000"
)

var (
	local = clientconfig.Mirror{URL: "http://127.0.0.1:5000", Registries: []string{ecr, "docker.io"}}
	far   = clientconfig.Mirror{URL: "https://mirror.internal:5443/", Registries: []string{ecr, other}, CA: "/etc/ssl/mirror.crt", PullOnly: true, Referrers: true}
)

// client returns the one of that name.
func client(t *testing.T, name string) clientconfig.Client {
	t.Helper()
	for _, c := range clientconfig.Clients() {
		if c.Name == name {
			return c
		}
	}
	t.Fatalf("no client %s", name)
	return clientconfig.Client{}
}

// Every client's text and warnings, for a mirror on the node and for one elsewhere, are those under testdata.
func TestGolden(t *testing.T) {
	for _, c := range clientconfig.Clients() {
		for kind, m := range map[string]clientconfig.Mirror{"local": local, "far": far} {
			var b strings.Builder
			all, err := c.Contents(m)
			if err != nil {
				t.Fatalf("%s: %v", c.Name, err)
			}
			for _, f := range all {
				if f.Path != "" {
					fmt.Fprintf(&b, "# %s\n", f.Path)
				}
				b.WriteString(f.Text)
			}
			for _, w := range c.Warnings(m) {
				b.WriteString("note: " + w + "\n")
			}
			file := filepath.Join("testdata", c.Name+"-"+kind+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), b.String()); d != "" {
				t.Errorf("%s (-want +got):\n%s", file, d)
			}
		}
	}
}

// What others wrote stays, in its order; what is there twice, or is no valid file, is refused rather than broken.
func TestMerge(t *testing.T) {
	const host = "[host.\"http://127.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"200ms\"\n"
	const begin, end = "# ecr-mirror begin: ecr-mirror client-config wrote this, and --remove takes it out\n", "# ecr-mirror end\n"
	for _, c := range []struct{ name, client, old, want string }{ // want "": refused
		{"other hosts come after", "containerd", "# mine\nserver = \"https://x\"\n\n[host.\"https://other\"]\n  ca = \"a\"\n",
			"# mine\nserver = \"https://x\"\n\n" + begin + host + end + "[host.\"https://other\"]\n  ca = \"a\"\n"},
		{"a server without a newline", "containerd", "server = \"https://x\"", "server = \"https://x\"\n" + begin + host + end},
		{"an empty file", "containerd", "\n", "server = \"https://" + ecr + "\"\n\n" + begin + host + end},
		{"an older version of ours", "containerd", "server = \"https://x\"\n" + begin + "[host.\"http://old\"]\n" + end + "[host.z]\n",
			"server = \"https://x\"\n" + begin + host + end + "[host.z]\n"},
		{"the same host is there", "containerd", "[host.\"http://127.0.0.1:5000\"]\n", ""},
		{"not TOML", "containerd", "server = \n", ""},
		{"a mark without its end", "containerd", begin + host, ""},
		{"daemon.json", "docker-hub", `{"data-root": "/x", "registry-mirrors": ["https://a"], "n": 12345678901234567890}`,
			"{\n  \"data-root\": \"/x\",\n  \"n\": 12345678901234567890,\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:5000\",\n    \"https://a\"\n  ]\n}\n"},
		{"daemon.json is a list", "docker-hub", `[]`, ""},
		{"its mirrors are no list", "docker-hub", `{"registry-mirrors": "https://a"}`, ""},
		{"registries.yaml", "k3s", "# mine\nmirrors:\n  " + ecr + ":\n    endpoint: [https://a] # first\nconfigs: {}\n",
			"# mine\nmirrors:\n  " + ecr + ":\n    endpoint: ['http://127.0.0.1:5000', 'https://a'] # first\n  docker.io:\n    endpoint:\n      - http://127.0.0.1:5000\nconfigs: {}\n"},
		{"an empty mirrors", "k3s", "mirrors:\n", "mirrors:\n  " + ecr + ":\n    endpoint:\n      - http://127.0.0.1:5000\n  docker.io:\n    endpoint:\n      - http://127.0.0.1:5000\n"},
		{"mirrors are a list", "k3s", "mirrors: []\n", ""},
		{"not YAML", "k3s", "a: b: c\n", ""},
		{"a registry that buildkitd.toml has", "buildkit", "[registry.\"docker.io\"]\n", ""},
	} {
		f := client(t, c.client).Files(local)[0]
		got, err := f.Add([]byte(c.old))
		if (err != nil) != (c.want == "") {
			t.Errorf("%s: %v", c.name, err)
		}
		if d := cmp.Diff(c.want, string(got)); err == nil && d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

// Whatever is in a file: adding twice is adding once, and removing gives back what was there.
func TestAddRemove(t *testing.T) {
	toml := rapid.Custom(func(t *rapid.T) string {
		s := ""
		if rapid.Bool().Draw(t, "server") {
			s += "server = \"https://x\"\n"
		}
		for i := range rapid.IntRange(0, 3).Draw(t, "tables") {
			s += rapid.SampledFrom([]string{"", "\n", "# a comment\n"}).Draw(t, "gap") + "[others." + string(rune('a'+i)) + "]\n  k = 1\n"
		}
		return s
	})
	mirrors := rapid.SampledFrom([]clientconfig.Mirror{local, far})
	for _, name := range []string{"containerd", "docker", "podman", "buildkit", "soci"} {
		c := client(t, name)
		rapid.Check(t, func(t *rapid.T) {
			old, f := toml.Draw(t, "old"), c.Files(mirrors.Draw(t, "mirror"))[0]
			once, err1 := f.Add([]byte(old))
			twice, err2 := f.Add(once)
			back, err3 := f.Remove(twice)
			if err1 != nil || err2 != nil || err3 != nil {
				t.Fatalf("%v, %v, %v", err1, err2, err3)
			}
			if string(once) != string(twice) {
				t.Fatalf("twice:\n%s\nonce:\n%s", twice, once)
			}
			if string(back) != old {
				t.Fatalf("removed:\n%q\nwas:\n%q", back, old)
			}
		})
	}
	for name, old := range map[string]string{"docker-hub": "{\n  \"a\": 1\n}\n", "k3s": "configs:\n  x:\n    auth: {username: u}\n"} {
		f := client(t, name).Files(far)[0]
		once, err1 := f.Add([]byte(old))
		twice, err2 := f.Add(once)
		back, err3 := f.Remove(twice)
		if err1 != nil || err2 != nil || err3 != nil || string(once) != string(twice) || string(back) != old {
			t.Errorf("%s: %v, %v, %v\n%s\n%s", name, err1, err2, err3, twice, back)
		}
		if back, err := f.Remove(must(f.Add(nil))); back != nil || err != nil {
			t.Errorf("%s: of nothing else %q, %v is left", name, back, err)
		}
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

func TestCheck(t *testing.T) {
	for _, m := range []clientconfig.Mirror{
		{}, {URL: "127.0.0.1:5000", Registries: []string{ecr}}, {URL: "ftp://h", Registries: []string{ecr}}, {URL: "http://h/path", Registries: []string{ecr}},
		{URL: "http://u:p@h", Registries: []string{ecr}}, {URL: "http://h?x", Registries: []string{ecr}}, {URL: "http://h?", Registries: []string{ecr}},
		{URL: "http://h//", Registries: []string{ecr}}, {URL: "HTTP://h", Registries: []string{ecr}}, {URL: "http://h"},
		{URL: "http://h", Registries: []string{"../../etc"}}, {URL: "http://h", Registries: []string{"a\"]\nb"}}, {URL: "http://h", Registries: []string{"https://h"}},
		{URL: "http://h", Registries: []string{ecr}, CA: "a\nb"},
	} {
		if m.Check() == nil {
			t.Errorf("%+v: no error", m)
		}
	}
	for _, m := range []clientconfig.Mirror{local, far} {
		if err := m.Check(); err != nil {
			t.Error(err)
		}
	}
}
