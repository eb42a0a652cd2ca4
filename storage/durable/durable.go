// Package durable creates files and directories that survive a power cut, by recipe: what a function returned nil for is on
// the disk under its name. The recipe stands above each function.
//
// Limitations: a disk that lies about fsync is believed. After a failed fsync the file's state is unknown: the caller drops
// the file, for a second fsync may succeed without having written anything.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// MkdirAll creates path and its missing parents.
//
//	for each missing level, outermost first:
//	  mkdir(level)
//	  fsync(parent of level)
func MkdirAll(path string, perm fs.FileMode) error {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return &fs.PathError{Op: "mkdir", Path: path, Err: syscall.ENOTDIR}
		}
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return SyncDir(parent)
}

// WriteFile makes path hold exactly data, or leaves it as it was. tmp names a file that nobody else uses in a directory of
// the same filesystem; it is gone afterwards.
//
//	open(tmp, O_CREAT|O_TRUNC)
//	write, fsync, close
//	rename(tmp, path)
//	fsync(directory of path)
func WriteFile(tmp, path string, data []byte, perm fs.FileMode) (err error) {
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return Publish(f, path)
}

// Publish gives the complete file f, which is open under f.Name, its final name path, replacing what is there. Descriptors
// of f stay good. f stays open.
//
//	fsync(f)
//	rename(f, path)
//	fsync(directory of path)
func Publish(f *os.File, path string) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the creation, renaming and removal of path's entries durable.
//
//	open(path, O_RDONLY)
//	fsync, close
func SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil // a filesystem without fsync of directories orders renames by itself, or cannot at all
	}
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", path, err)
	}
	return nil
}
