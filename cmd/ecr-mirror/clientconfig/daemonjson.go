package clientconfig

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
)

// dockerHub is registry-mirrors in daemon.json, which dockerd looks at for docker.io alone (moby, daemon/pkg/registry).
func dockerHub() Client {
	return Client{Name: "docker-hub", About: "daemon.json registry-mirrors for Docker Hub's names, any Docker",
		Files: func(m Mirror) []File { return []File{daemonJSON(m.url()).file("/etc/docker/daemon.json")} },
		Traps: func(m Mirror) []string {
			traps := []string{
				"registry-mirrors are for docker.io alone: images of any other registry never ask the mirror.",
				"Docker does not say which registry it means: the mirror that docker.io is a name of has to be the first in ecr-mirror's configuration.",
				"dockerd reads the file again on SIGHUP.",
			}
			if m.plain() && !m.local() {
				traps = append(traps, "Docker speaks plain HTTP to loopback alone: "+m.host()+" has to be in insecure-registries too, or speak TLS.")
			}
			if m.CA != "" {
				traps = append(traps, "The authority has to be in /etc/docker/certs.d/"+m.host()+"/ca.crt: cp "+m.CA+" there.")
			}
			return traps
		}}
}

// daemonJSON is the URL of a mirror.
type daemonJSON string

func (d daemonJSON) file(path string) File { return File{path, d.add, d.remove} }

const registryMirrors = "registry-mirrors"

func (d daemonJSON) add(old []byte) ([]byte, error) {
	return d.edit(old, func(urls []string) []string {
		if slices.Contains(urls, string(d)) {
			return urls
		}
		return append([]string{string(d)}, urls...)
	})
}

func (d daemonJSON) remove(old []byte) ([]byte, error) {
	return d.edit(old, func(urls []string) []string {
		return slices.DeleteFunc(urls, func(u string) bool { return u == string(d) })
	})
}

// edit changes the list; the file's other keys keep their values. Nothing that is left is no file.
func (d daemonJSON) edit(old []byte, change func([]string) []string) ([]byte, error) {
	keys := make(map[string]json.RawMessage)
	if len(bytes.TrimSpace(old)) > 0 {
		if err := json.Unmarshal(old, &keys); err != nil {
			return nil, fmt.Errorf("not a JSON object: %w", err)
		}
	}
	var urls []string
	if raw, ok := keys[registryMirrors]; ok {
		if err := json.Unmarshal(raw, &urls); err != nil {
			return nil, fmt.Errorf("%s: not a list of texts: %w", registryMirrors, err)
		}
	}
	changed := change(slices.Clone(urls))
	if slices.Equal(urls, changed) {
		return old, nil
	}
	delete(keys, registryMirrors)
	if len(changed) > 0 {
		raw, err := json.Marshal(changed)
		if err != nil {
			return nil, err
		}
		keys[registryMirrors] = raw
	}
	if len(keys) == 0 {
		return nil, nil
	}
	b, err := json.MarshalIndent(keys, "", "  ")
	return append(b, '\n'), err
}
