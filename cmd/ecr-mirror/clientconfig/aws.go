package clientconfig

import (
	"fmt"
	"path"
	"strings"
)

// nodeadm is user data of EKS's AL2023 nodes: a shell part that writes what containerd reads, and a NodeConfig
// (awslabs/amazon-eks-ami, nodeadm/doc).
func nodeadm() Client {
	return Client{Name: "nodeadm", About: "user data for EKS on AL2023 (managed node groups with a launch template, Karpenter)",
		Text: func(m Mirror) string {
			var b strings.Builder
			b.WriteString("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"BOUNDARY\"\n\n--BOUNDARY\nContent-Type: text/x-shellscript; charset=\"us-ascii\"\n\n#!/bin/bash\nset -e\n")
			for _, f := range containerd().Files(m) {
				content, err := f.Add(nil)
				if err != nil {
					continue // unreachable: an empty file takes it
				}
				fmt.Fprintf(&b, "mkdir -p %s\ncat >%s <<'TOML'\n%sTOML\n", path.Dir(f.Path), f.Path, content)
			}
			b.WriteString(`
--BOUNDARY
Content-Type: application/node.eks.aws

apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  containerd:
    config: |
      [plugins.'io.containerd.cri.v1.images'.registry]
      config_path = "/etc/containerd/certs.d"

--BOUNDARY--
`)
			return b.String()
		},
		Traps: func(m Mirror) []string {
			return append(hostsTraps(m),
				"The NodeConfig is for containerd 2.x; 1.x refuses its plugin's name. It sets a single config_path, without which mirrors are ignored once discard_unpacked_layers is turned off.",
				"The mirror's own image, and those of CNI and pause, must not need the mirror: a mirror on the node refuses connections at once while it is not up, and the registry itself answers.")
		}}
}

// bottlerocket is settings in TOML (Bottlerocket, "container-registry" settings).
func bottlerocket() Client {
	return Client{Name: "bottlerocket", About: "settings for Bottlerocket user data",
		Text: func(m Mirror) string {
			var b strings.Builder
			for _, r := range m.Registries {
				fmt.Fprintf(&b, "[[settings.container-registry.mirrors]]\nregistry = %s\nendpoint = [%s]\n", quote(r), quote(m.url()))
			}
			return b.String()
		},
		Traps: func(m Mirror) []string {
			traps := []string{
				"Bottlerocket gives a mirror no dial_timeout: one that hangs costs 30 s a request; one on the node refuses at once.",
				"Several endpoints of a registry were sorted by name in some releases.",
				"Host and bootstrap containers do not use mirrors.",
				"A credentials entry for a registry hides the mirror of \"*\" from it (core-kit issue 1039).",
			}
			if m.CA != "" {
				traps = append(traps, "The authority goes into settings.pki: mirrors have no ca of their own.")
			}
			return traps
		}}
}
