package clientconfig

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const (
	containerdConfig = "/etc/containerd/config.toml"
	containerdCerts  = "/etc/containerd/certs.d"
)

// criPlugin is what of the CRI plugin's configuration decides whether pulls read hosts.toml (containerd, docs/cri/registry.md).
type criPlugin struct {
	Registry struct {
		ConfigPath string         `toml:"config_path"`
		Mirrors    map[string]any `toml:"mirrors"`
		Configs    map[string]any `toml:"configs"`
	} `toml:"registry"`
	UseLocalImagePull     bool `toml:"use_local_image_pull"`
	DiscardUnpackedLayers bool `toml:"discard_unpacked_layers"`
}

// examineContainerd says what in config.toml keeps its CRI from reading hosts.toml. Files that it imports are not followed.
func examineContainerd(root string) ([]string, error) {
	path, err := follow(root, containerdConfig)
	if err != nil {
		return nil, err
	}
	_, text, err := current(path)
	if err != nil {
		return nil, err
	}
	var c struct {
		Plugins struct {
			Two criPlugin `toml:"io.containerd.cri.v1.images"`
			One criPlugin `toml:"io.containerd.grpc.v1.cri"`
		} `toml:"plugins"`
	}
	if err := toml.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", containerdConfig, err)
	}
	two := c.Plugins.Two
	var found []string
	for _, p := range [...]criPlugin{two, c.Plugins.One} {
		if len(p.Registry.Mirrors)+len(p.Registry.Configs) > 0 {
			found = append(found, containerdConfig+" has registry.mirrors or registry.configs, beside which containerd takes no config_path: take them out, set config_path and restart containerd.")
		}
	}
	set := two.Registry.ConfigPath
	if set == "" {
		set = c.Plugins.One.Registry.ConfigPath
	}
	dirs := strings.Split(set, ":")
	switch {
	case set == "":
		found = append(found, fmt.Sprintf("%s sets no config_path: containerd before 2.2 then reads no hosts.toml. Set config_path = %q and restart containerd.", containerdConfig, containerdCerts))
	case !slices.Contains(dirs, containerdCerts):
		found = append(found, fmt.Sprintf("%s has config_path = %q: nobody reads %s.", containerdConfig, set, containerdCerts))
	case len(dirs) > 1 && two.Registry.ConfigPath != "" && !two.UseLocalImagePull && !two.DiscardUnpackedLayers:
		found = append(found, fmt.Sprintf("%s has config_path = %q, a list, with which pulls by the transfer service (containerd 2.1 and later) read no hosts.toml: make it %q and restart containerd.", containerdConfig, set, containerdCerts))
	}
	return found, nil
}
