package clientconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

const (
	backup  = ".before-ecr-mirror" // what a file was before the mirror was first added
	maxFile = 4 << 20              // bytes; what is larger is no configuration
)

// Change is what became of a file.
type Change struct {
	Path string `json:"path"`
	What string `json:"what"` // written, unchanged or removed
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
		name := filepath.Join(root, f.Path)
		path, err := follow(root, f.Path)
		if err != nil {
			return done, fmt.Errorf("%s: %w", name, err)
		}
		what, err := change(path, func(old []byte) ([]byte, error) { return edit(f, old) })
		if err != nil {
			return done, fmt.Errorf("%s: %w", name, err)
		}
		done = append(done, Change{name, what})
	}
	return done, nil
}

// change replaces what is in the file at path by what edit makes of it; nil is no file.
func change(path string, edit func([]byte) ([]byte, error)) (what string, err error) {
	info, old, err := current(path)
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
		if err := replace(path+backup, old, info); err != nil {
			return "", fmt.Errorf("keep the old one: %w", err)
		}
	}
	if err := replace(path, changed, info); err != nil {
		return "", err
	}
	if kept, err := os.ReadFile(path + backup); err == nil && bytes.Equal(kept, changed) { // it is what it was again
		if err := os.Remove(path + backup); err != nil {
			return "", err
		}
	}
	return "written", nil
}

// follow returns where name under root is once symbolic links are followed, as far as it exists: the file that a link leads
// to is the one to be replaced. A link that leads out of root is an error, for what stands for / there is not / here.
func follow(root, name string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	if root, err = existing(root); err != nil {
		return "", err
	}
	path, err := existing(filepath.Join(root, name))
	if err != nil {
		return "", err
	}
	if within, err := filepath.Rel(root, path); err != nil || !filepath.IsLocal(within) {
		return "", fmt.Errorf("a symbolic link leads to %s, out of %s", path, root)
	}
	return path, nil
}

func existing(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if parent := filepath.Dir(path); errors.Is(err, fs.ErrNotExist) && parent != path {
		real, err = existing(parent)
		return filepath.Join(real, filepath.Base(path)), err
	}
	return real, err
}

// current reads the file at path; info is nil if there is none.
func current(path string) (info fs.FileInfo, data []byte, err error) {
	info, err = os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil
	case err != nil:
		return nil, nil, err
	case !info.Mode().IsRegular():
		return nil, nil, errors.New("not a regular file")
	case info.Size() > maxFile:
		return nil, nil, fmt.Errorf("larger than %d bytes", maxFile)
	}
	data, err = os.ReadFile(path)
	if data == nil {
		data = []byte{}
	}
	return info, data, err
}

// replace makes path hold data, with the mode and the owner of was, whatever the umask: clients of other users read it, and
// what others may not read stays so. A file without a predecessor is for everybody to read. The temporary name is a new one,
// so that nothing which lies there is written to or decides who may read.
func replace(path string, data []byte, was fs.FileInfo) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	perm := fs.FileMode(0o644)
	if was != nil {
		perm = was.Mode().Perm()
		if owner, ok := was.Sys().(*syscall.Stat_t); ok {
			if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return err
			}
		}
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return durable.Publish(f, path)
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
