package clientconfig

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
)

// k3s is registries.yaml of k3s and RKE2 (k3s, docs "Private Registry Configuration"), from which they write hosts.toml.
func k3s() Client {
	return Client{Name: "k3s", About: "registries.yaml of k3s (RKE2: copy to /etc/rancher/rke2)",
		Files: func(m Mirror) []File {
			return []File{{"/etc/rancher/k3s/registries.yaml", endpoints{m}.add, endpoints{m}.remove}}
		},
		Traps: func(Mirror) []string {
			return []string{
				"k3s reads the file when it starts.",
				"--disable-default-registry-endpoint takes away the fallback to the registry itself.",
			}
		}}
}

// endpoints edits the mirrors in a registries.yaml; comments stay.
type endpoints struct{ Mirror }

func (e endpoints) add(old []byte) ([]byte, error) {
	return e.edit(old, func(top *yaml.Node) error {
		mirrors, err := child(top, "mirrors", yaml.MappingNode)
		if err != nil {
			return err
		}
		for _, r := range e.Registries {
			host, err := child(mirrors, r, yaml.MappingNode)
			if err != nil {
				return err
			}
			list, err := child(host, "endpoint", yaml.SequenceNode)
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(list.Content, e.ours) {
				list.Content = append([]*yaml.Node{text(e.url())}, list.Content...)
			}
		}
		if e.CA == "" {
			return nil
		}
		node := top
		for _, key := range []string{"configs", e.host(), "tls"} {
			if node, err = child(node, key, yaml.MappingNode); err != nil {
				return err
			}
		}
		if find(node, "ca_file") < 0 {
			node.Content = append(node.Content, text("ca_file"), text(e.CA))
		}
		return nil
	})
}

func (e endpoints) remove(old []byte) ([]byte, error) {
	return e.edit(old, func(top *yaml.Node) error {
		for _, r := range e.Registries {
			path := []string{"mirrors", r, "endpoint"}
			if list := at(top, path); list != nil {
				list.Content = slices.DeleteFunc(list.Content, e.ours)
			}
			prune(top, path)
		}
		if ca := at(top, []string{"configs", e.host(), "tls", "ca_file"}); ca != nil && ca.Value == e.CA {
			drop(at(top, []string{"configs", e.host(), "tls"}), "ca_file")
			prune(top, []string{"configs", e.host(), "tls"})
		}
		return nil
	})
}

func (e endpoints) ours(n *yaml.Node) bool { return n.Value == e.url() }

func (e endpoints) edit(old []byte, change func(top *yaml.Node) error) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(old, &doc); err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	if doc.Kind == 0 {
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, errors.New("not a mapping")
	}
	before, err := encode(&doc)
	if err != nil {
		return nil, err
	}
	if err := change(top); err != nil {
		return nil, err
	}
	after, err := encode(&doc)
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(before, after):
		return old, nil
	case len(top.Content) == 0:
		return nil, nil
	}
	return after, nil
}

func encode(doc *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

func text(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

// find returns where key's value is in a mapping, or -1.
func find(m *yaml.Node, key string) int {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			return i + 1
		}
	}
	return -1
}

// child returns the value of key, which is made if absent.
func child(m *yaml.Node, key string, kind yaml.Kind) (*yaml.Node, error) {
	i := find(m, key)
	if i < 0 {
		v := &yaml.Node{Kind: kind}
		m.Content = append(m.Content, text(key), v)
		return v, nil
	}
	v := m.Content[i]
	if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
		*v = yaml.Node{Kind: kind}
	}
	if v.Kind != kind {
		return nil, fmt.Errorf("line %d: %s: not what belongs there", v.Line, key)
	}
	return v, nil
}

// at returns what is at path, or nil.
func at(top *yaml.Node, path []string) *yaml.Node {
	for _, key := range path {
		i := -1
		if top.Kind == yaml.MappingNode {
			i = find(top, key)
		}
		if i < 0 {
			return nil
		}
		top = top.Content[i]
	}
	return top
}

func drop(m *yaml.Node, key string) {
	if i := find(m, key); i > 0 {
		m.Content = slices.Delete(m.Content, i-1, i+1)
	}
}

// prune takes out what is empty at path, from its end.
func prune(top *yaml.Node, path []string) {
	for i := len(path); i > 0; i-- {
		n := at(top, path[:i])
		if n == nil {
			continue
		}
		if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
			return
		}
		drop(at(top, path[:i-1]), path[i-1])
	}
}
