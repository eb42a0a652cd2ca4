package clientconfig

import (
	"fmt"
	"strings"
)

// podman is a drop-in of registries.conf (containers-registries.conf.d(5), containers-registries.conf(5)).
func podman() Client {
	return Client{Name: "podman", About: "registries.conf drop-in for podman, CRI-O, skopeo and buildah",
		Files: func(m Mirror) []File {
			var b strings.Builder
			for _, r := range m.Registries {
				at := m.host() + "/" + r
				if strings.Contains(r, ":") {
					at = m.host()
				}
				fmt.Fprintf(&b, "[[registry]]\n  prefix = %s\n  location = %s\n  [[registry.mirror]]\n    location = %s\n", quote(r), quote(r), quote(at))
				if m.plain() {
					b.WriteString("    insecure = true\n")
				}
				if m.PullOnly {
					b.WriteString("    pull-from-mirror = \"digest-only\"\n")
				}
			}
			return []File{block{text: b.String()}.file("/etc/containers/registries.conf.d/50-ecr-mirror.conf")}
		},
		Traps: func(m Mirror) []string {
			traps := []string{
				"Once the mirror gave the manifest, these clients take everything from it: a blob that fails then fails the pull. The mirror therefore gives out no manifest in an outage whose blobs it lacks.",
				"Credentials for the mirror are those that auth.json has for " + m.host() + ": --creds and kubelet's are not sent there.",
				"A [[registry]] with the same prefix in a file that is read later replaces this one as a whole.",
			}
			for _, r := range m.Registries {
				if strings.Contains(r, ":") {
					traps = append(traps, r+" has a port, which cannot stand in an image's name behind the mirror's: the mirror has to have it first in its configuration, for it is not told which registry is meant.")
				}
			}
			if m.CA != "" {
				traps = append(traps, "The authority has to be in /etc/containers/certs.d/"+m.host()+"/ca.crt: cp "+m.CA+" there.")
			}
			return traps
		}}
}
