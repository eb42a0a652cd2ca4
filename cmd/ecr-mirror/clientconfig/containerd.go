package clientconfig

import (
	"fmt"
	"path"
)

// hostsTOML is a hosts.toml for each registry under root. Keys that a containerd does not know are ignored by it, unknown
// capabilities make it ignore the file: only pull and resolve are known to all of 1.5 and later (containerd,
// docs/hosts.md; core/remotes/docker/config/hosts.go). dial_timeout is 2.0.7's and 2.1's.
func hostsTOML(root string, m Mirror) []File {
	capabilities := `["pull", "resolve"]`
	switch {
	case m.PullOnly && m.Referrers:
		capabilities = `["pull", "referrers"]`
	case m.PullOnly:
		capabilities = `["pull"]`
	case m.Referrers:
		capabilities = `["pull", "resolve", "referrers"]`
	}
	var files []File
	for _, r := range m.Registries {
		text := fmt.Sprintf("[host.%s]\n  capabilities = %s\n  dial_timeout = \"200ms\"\n", quote(m.url()), capabilities)
		if m.CA != "" {
			text += "  ca = " + quote(m.CA) + "\n"
		}
		server := "https://" + r
		if r == "docker.io" {
			server = "https://registry-1.docker.io"
		}
		files = append(files, block{head: "server = " + quote(server) + "\n\n", text: text, top: true}.file(path.Join(root, r, "hosts.toml")))
	}
	return files
}

func hostsTraps(m Mirror) []string {
	var traps []string
	if m.Referrers {
		traps = append(traps, "The capability referrers is known to containerd 2.2 and later; older ones ignore the whole file, and so the mirror.")
	}
	if !m.local() {
		traps = append(traps, "dial_timeout is known to containerd 2.0.7, 2.1 and later; before, a mirror that is not reachable costs 30 s a request: a mirror on the node refuses at once.")
	}
	return traps
}

func containerd() Client {
	const dir = containerdCerts
	return Client{Name: "containerd", About: "hosts.toml for containerd 1.5 to 2.x: CRI, ctr, nerdctl", Dir: dir, Examine: examineContainerd,
		Files: func(m Mirror) []File { return hostsTOML(dir, m) },
		Traps: func(m Mirror) []string {
			return append(hostsTraps(m),
				"config_path has to be "+dir+" alone. Of a list like \""+dir+":/etc/docker/certs.d\", the default since containerd 2.2 and on EKS, pulls by the transfer service (CRI since 2.1) ignore every hosts.toml (containerd issue 12808), unless use_local_image_pull or discard_unpacked_layers is true. containerd 1.x has no default: set it in [plugins.\"io.containerd.grpc.v1.cri\".registry].",
				"Where registry.mirrors or registry.configs are set in config.toml, containerd refuses config_path.",
				"The credentials of the pull reach the mirror only if it asks for them with a Basic challenge, and from kubelet only: nerdctl and ctr look them up under the mirror's own name.")
		}}
}

func docker() Client {
	const dir = "/etc/docker/certs.d"
	return Client{Name: "docker", About: "hosts.toml for Docker 28 and later with the containerd image store", Dir: dir,
		Files: func(m Mirror) []File { return hostsTOML(dir, m) },
		Traps: func(m Mirror) []string {
			return append(hostsTraps(m),
				"Docker with its classic store (all before 28, and 28 or later when upgraded) reads no hosts.toml: name the mirror in the image, "+m.host()+"/REGISTRY/REPOSITORY, or see docker-hub for Docker Hub's names.",
				"Docker sends no credentials to a mirror: one that asks for them is passed over. Let it ask for none, or put a static Authorization header into the [host] table.",
				"Rootless Docker reads ~/.config/docker/certs.d instead.")
		}}
}
