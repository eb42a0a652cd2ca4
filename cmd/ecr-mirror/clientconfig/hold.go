package clientconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

// heldFile, in the directory of a client's files, names the registries that a Holding has told the client of, one a line. A
// process that was killed leaves it, and the next one knows what to take out.
const heldFile = ".ecr-mirror"

// Holding keeps the mirror in a client's files while its process lives. It has a shared lock on their directory, which the kernel
// drops with the process: several may hold at once, as the old and the new pod of an upgrade do, and the last one cleans up.
type Holding struct {
	client Client
	root   string
	mirror Mirror
	dir    *os.File
}

// Hold installs the mirror until Release, and takes out registries that an earlier holder told the client of and m does not
// name. When it fails, what it did is taken out again. The caller calls Release.
func (c Client) Hold(root string, m Mirror) (*Holding, []Change, error) {
	if c.Dir == "" {
		return nil, nil, fmt.Errorf("%s: cannot be held: it reads its files when it starts", c.Name)
	}
	path, err := follow(root, c.Dir)
	if err != nil {
		return nil, nil, err
	}
	if err := durable.MkdirAll(path, 0o755); err != nil {
		return nil, nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	h := &Holding{c, root, m, dir}
	if err := h.lock(syscall.LOCK_SH); err != nil { // waits while another Release is at work
		return nil, nil, errors.Join(err, dir.Close())
	}
	done, err := h.install()
	if err != nil {
		undone, _, releaseErr := h.Release()
		return nil, append(done, undone...), errors.Join(err, releaseErr)
	}
	return h, done, nil
}

// install writes down what is to be taken out before it is there.
func (h *Holding) install() ([]Change, error) {
	before, err := h.held()
	if err != nil {
		return nil, err
	}
	gone := slices.DeleteFunc(slices.Clone(before), func(r string) bool { return slices.Contains(h.mirror.Registries, r) })
	if err := h.hold(slices.Concat(gone, h.mirror.Registries)); err != nil {
		return nil, err
	}
	done, err := h.client.Install(h.root, h.mirror)
	if err != nil {
		return done, err
	}
	removed, err := h.client.Uninstall(h.root, Mirror{Registries: gone})
	if done = append(done, removed...); err != nil {
		return done, err
	}
	return done, h.hold(h.mirror.Registries)
}

// Release takes the mirror out of the files, unless another holder is left: then it changes nothing, and kept is true. It closes h,
// also when it fails.
func (h *Holding) Release() (done []Change, kept bool, err error) {
	defer h.dir.Close() // and with it the lock
	err = h.lock(syscall.LOCK_EX | syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	registries, err := h.held()
	if err != nil {
		return nil, false, err
	}
	if done, err = h.client.Uninstall(h.root, Mirror{Registries: registries}); err != nil {
		return done, false, err
	}
	return done, false, h.hold(nil)
}

// held reads the registries that are in the files, or may be.
func (h *Holding) held() ([]string, error) {
	_, text, err := current(h.file())
	registries := strings.Fields(string(text))
	for _, r := range registries {
		if err == nil && !domain.MatchString(r) {
			err = fmt.Errorf("%s: %q is not a registry: the file was edited", h.file(), r)
		}
	}
	return registries, err
}

// hold writes them down.
func (h *Holding) hold(registries []string) error {
	if len(registries) > 0 {
		return replace(h.file(), []byte(strings.Join(registries, "\n")+"\n"), nil)
	}
	if err := os.Remove(h.file()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return h.dir.Sync()
}

func (h *Holding) file() string { return filepath.Join(h.dir.Name(), heldFile) }

func (h *Holding) lock(how int) error {
	for {
		err := syscall.Flock(int(h.dir.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}
