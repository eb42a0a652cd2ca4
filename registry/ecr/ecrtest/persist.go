package ecrtest

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
)

// The directory: content/<algorithm>/<hex>; registries/<account>/<region>/registry.json and .../repositories/<sha256 of the
// name>.json; key, which signs tokens and URLs. A file is written beside its place and renamed.

type registryFile struct {
	Settings       map[string]string // account settings
	Policy         string
	Replication    replicationConfig
	Templates      []*template
	CacheRules     []*cacheRule
	PullExclusions []string
	Scanning       scanning
	Signing        *signing
}

func (e *Emulator) load() error {
	for _, d := range []string{"content", "registries"} {
		if err := os.MkdirAll(filepath.Join(e.opt.Dir, d), 0o755); err != nil {
			return err
		}
	}
	e.content = directory{filepath.Join(e.opt.Dir, "content")}
	stages, _ := filepath.Glob(filepath.Join(e.opt.Dir, "content", "stage-*"))
	for _, s := range stages { // uploads that a restart ended
		os.Remove(s)
	}
	keyFile := filepath.Join(e.opt.Dir, "key")
	b, err := os.ReadFile(keyFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(e.key)), 0o600); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if e.key, err = hex.DecodeString(strings.TrimSpace(string(b))); err != nil || len(e.key) < 16 {
			return fmt.Errorf("%s: not a key", keyFile)
		}
	}
	dirs, err := filepath.Glob(filepath.Join(e.opt.Dir, "registries", "*", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		account, region := filepath.Base(filepath.Dir(dir)), filepath.Base(dir)
		if !accountRE.MatchString(account) || !regionRE.MatchString(region) {
			continue
		}
		if err := e.Registry(account, region).load(dir); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) load(dir string) error {
	var f registryFile
	if err := readJSON(filepath.Join(dir, "registry.json"), &f); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if f.Settings == nil {
		f.Settings = map[string]string{}
	}
	r.registryFile = f
	files, err := filepath.Glob(filepath.Join(dir, "repositories", "*.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		p := &repository{}
		if err := readJSON(file, p); err != nil {
			return err
		}
		r.repos[p.Name] = p
	}
	r.resume()
	return nil
}

func (r *Registry) dir() string {
	return filepath.Join(r.emu.opt.Dir, "registries", r.Account, r.Region)
}

func (r *Registry) repoFile(name string) string {
	return filepath.Join(r.dir(), "repositories", digest.FromString(name).Encoded()+".json")
}

// save writes p down. The caller holds r.mu.
func (r *Registry) save(p *repository) error {
	if r.emu.opt.Dir == "" {
		return nil
	}
	return writeJSON(r.repoFile(p.Name), p)
}

// saveSettings writes the registry's own settings down. The caller holds r.mu.
func (r *Registry) saveSettings() error {
	if r.emu.opt.Dir == "" {
		return nil
	}
	return writeJSON(filepath.Join(r.dir(), "registry.json"), r.registryFile)
}

// drop forgets the repository name. The caller holds r.mu.
func (r *Registry) drop(name string) error {
	delete(r.repos, name)
	if r.emu.opt.Dir == "" {
		return nil
	}
	return os.Remove(r.repoFile(name))
}

func readJSON(file string, v any) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

func writeJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(file+".tmp", b, 0o644); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}
