package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// real are the programs that commands may use as they are: what Debian has anyway, and what .ci/run installs. The others are
// in testdata/bin: they stand for what cannot be here (a cluster, systemd), and check what they are asked; or wrap the real
// one, as ecr-mirror's does to go on when serve serves. Any other command is not found, whatever this machine has.
var real = strings.Fields(`awk base64 basename bash cat chmod chown cp curl cut date df diff dirname du echo env false find grep gunzip gzip head id
	install jq kill ln ls mkdir mktemp mv openssl printf rm sed seq sh sleep sort stat tail tar tee test touch tr true uname uniq wc xargs
	buildah crane podman regctl skopeo`)

// wrapped are the real ones behind some in testdata/bin, as real-NAME.
var wrapped = strings.Fields(`aws docker dockerd git go helm make`)

// find returns where a program is; "" if nowhere. Debian's come first: what others put before them may not work here.
func find(name string) string {
	for _, dir := range append([]string{"/usr/bin", "/usr/sbin"}, filepath.SplitList(os.Getenv("PATH"))...) {
		if found, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return found
		}
	}
	return ""
}

// programs fills the world's only directory of programs.
func (w *world) programs() error {
	if err := os.MkdirAll(w.path("bin"), 0o755); err != nil {
		return err
	}
	link := func(name, as string) error {
		if found := find(name); found != "" {
			return os.Symlink(found, w.path("bin", as))
		}
		return nil // a document that uses it fails
	}
	for _, name := range real {
		if err := link(name, name); err != nil {
			return err
		}
	}
	for _, name := range wrapped {
		if err := link(name, "real-"+name); err != nil {
			return err
		}
	}
	ours, err := filepath.Glob(filepath.Join("testdata", "bin", "*"))
	if err != nil {
		return err
	}
	for _, name := range ours {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(w.path("bin", filepath.Base(name)), text, 0o755); err != nil {
			return err
		}
	}
	return nil
}
