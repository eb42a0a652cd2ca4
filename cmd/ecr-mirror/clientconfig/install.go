package clientconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

const (
	backup  = ".before-ecr-mirror" // what a file was before the mirror was first added
	maxFile = 4 << 20              // bytes; what is larger is no configuration
)

// Change is what became of a file.
type Change struct {
	Path string
	What string // written, unchanged, removed
}

// Install adds the mirror to every file of c's under root, atomically and durably: clients read them at every pull. A file
// that was there is kept under the name .before-ecr-mirror. What has been done when an error comes stays, and is returned.
func (c Client) Install(root string, m Mirror) ([]Change, error) {
	return c.each(root, m, func(f File, old []byte) ([]byte, error) { return f.Add(old) })
}

// Uninstall takes the mirror out again. Files and directories that held nothing else go: an empty directory of hosts.toml
// would hide _default.
func (c Client) Uninstall(root string, m Mirror) ([]Change, error) {
	return c.each(root, m, func(f File, old []byte) ([]byte, error) {
		if old == nil {
			return nil, nil
		}
		return f.Remove(old)
	})
}

func (c Client) each(root string, m Mirror, edit func(File, []byte) ([]byte, error)) (done []Change, err error) {
	if c.Files == nil {
		return nil, fmt.Errorf("%s: nothing to install: its text is for you to place", c.Name)
	}
	for _, f := range c.Files(m) {
		path := filepath.Join(root, f.Path)
		what, err := change(path, func(old []byte) ([]byte, error) { return edit(f, old) })
		if err != nil {
			return done, fmt.Errorf("%s: %w", path, err)
		}
		done = append(done, Change{path, what})
	}
	return done, nil
}

// change replaces what is in the file at path by what edit makes of it; nil is no file.
func change(path string, edit func([]byte) ([]byte, error)) (what string, err error) {
	path, perm, old, err := current(path)
	if err != nil {
		return "", err
	}
	changed, err := edit(old)
	switch {
	case err != nil:
		return "", err
	case old == nil && changed == nil, old != nil && changed != nil && bytes.Equal(old, changed):
		return "unchanged", nil
	case changed == nil:
		return "removed", discard(path)
	}
	if err := durable.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if _, err := os.Lstat(path + backup); old != nil && errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(path+backup+".tmp", path+backup, old, perm); err != nil {
			return "", fmt.Errorf("keep the old one: %w", err)
		}
	}
	if err := durable.WriteFile(path+".ecr-mirror.tmp", path, changed, perm); err != nil {
		return "", err
	}
	if kept, err := os.ReadFile(path + backup); err == nil && bytes.Equal(kept, changed) { // it is what it was again
		if err := os.Remove(path + backup); err != nil {
			return "", err
		}
	}
	return "written", nil
}

// current reads the file at path; where that is a symbolic link, the file it leads to, which is the one to be replaced.
func current(path string) (real string, perm fs.FileMode, data []byte, err error) {
	if real, err = filepath.EvalSymlinks(path); errors.Is(err, fs.ErrNotExist) {
		return path, 0o644, nil, nil
	} else if err != nil {
		return "", 0, nil, err
	}
	info, err := os.Stat(real)
	switch {
	case err != nil:
		return "", 0, nil, err
	case !info.Mode().IsRegular():
		return "", 0, nil, errors.New("not a regular file")
	case info.Size() > maxFile:
		return "", 0, nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	data, err = os.ReadFile(real)
	if data == nil {
		data = []byte{}
	}
	return real, info.Mode().Perm(), data, err
}

// discard removes a file with its backup, and its directory if that held nothing else.
func discard(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	if err := os.Remove(path + backup); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(path)
	if entries, err := os.ReadDir(dir); err == nil && len(entries) == 0 && filepath.Base(path) == "hosts.toml" {
		if err := os.Remove(dir); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	return durable.SyncDir(dir)
}
