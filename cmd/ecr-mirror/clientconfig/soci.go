package clientconfig

import (
	"fmt"
	"strings"
)

// soci is soci-snapshotter's resolver (config/resolver.go).
func soci() Client {
	return Client{Name: "soci", About: "mirrors of the SOCI snapshotter, for lazily loaded layers",
		Files: func(m Mirror) []File {
			var b strings.Builder
			for _, r := range m.Registries {
				fmt.Fprintf(&b, "[[resolver.host.%s.mirrors]]\n  host = %s\n", quote(r), quote(m.url()))
				if m.plain() {
					b.WriteString("  insecure = true\n")
				}
			}
			return []File{block{text: b.String()}.file("/etc/soci-snapshotter-grpc/config.toml")}
		},
		Traps: func(Mirror) []string {
			return []string{
				"SOCI sends no ns: the mirror answers from the first registry that it mirrors.",
				"SOCI gives up on an answer that begins after 3 s; the mirror answers 503 before.",
				"Indexes and parallel pull do not use these mirrors, only lazily loaded layers do.",
			}
		}}
}

// buildkit is buildkitd.toml (buildkit, docs/buildkitd.toml.md). The path prefix is for BuildKit's sake not needed, for it
// sends ns as well; it is what also works through proxies that drop a query.
func buildkit() Client {
	return Client{Name: "buildkit", About: "buildkitd.toml",
		Files: func(m Mirror) []File {
			var b strings.Builder
			for _, r := range m.Registries {
				fmt.Fprintf(&b, "[registry.%s]\n  mirrors = [%s]\n", quote(r), quote(m.host()+"/"+r))
			}
			fmt.Fprintf(&b, "[registry.%s]\n", quote(m.host()))
			switch {
			case m.plain():
				b.WriteString("  http = true\n")
			case m.CA != "":
				fmt.Fprintf(&b, "  ca = [%s]\n", quote(m.CA))
			}
			return []File{block{text: b.String()}.file("/etc/buildkit/buildkitd.toml")}
		},
		Traps: func(m Mirror) []string {
			return []string{
				"Credentials for the mirror are those that the client's docker config has for " + m.host() + ", not the registry's.",
				"buildx with the docker-container driver takes this file by --buildkitd-config when the builder is created, and " + m.host() + " is then as the builder's container sees it.",
			}
		}}
}
