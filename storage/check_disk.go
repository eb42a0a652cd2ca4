package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// checkObjects goes through blobs/ and verifies what is an object there.
func (c *checker) checkObjects(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(c.Concurrency)
	err := c.eachObject(ctx, func(d digest.Digest) {
		work.Go(func() error { return c.checkObject(ctx, d) })
	})
	return errors.Join(work.Wait(), err)
}

func (c *checker) eachObject(ctx context.Context, object func(digest.Digest)) error {
	algorithms, err := c.list(filepath.Join(c.root, "blobs"), func(e fs.DirEntry) bool {
		return e.IsDir() && slices.Contains(algorithms(), e.Name())
	})
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		shards, err := c.list(c.blobsDir(algorithm, ""), func(e fs.DirEntry) bool {
			return e.IsDir() && slices.Contains(shards(), e.Name())
		})
		if err != nil {
			return err
		}
		for _, digits := range shards {
			names, err := c.list(c.blobsDir(algorithm, digits), func(e fs.DirEntry) bool {
				return e.Type().IsRegular() && strings.HasPrefix(e.Name(), digits) && digest.Digest(algorithm+":"+e.Name()).Validate() == nil
			})
			if err != nil {
				return err
			}
			for _, name := range names {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				object(digest.Digest(algorithm + ":" + name))
			}
		}
	}
	return nil
}

// list returns the names in dir that belong there, and reports the others.
func (c *checker) list(dir string, belongs func(fs.DirEntry) bool) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if belongs(e) {
			names = append(names, e.Name())
			continue
		}
		path := filepath.Join(dir, e.Name())
		c.found(Problem{Kind: Stranger, Path: path, Detail: "not a file of the store"}, func() error { return os.Remove(path) })
	}
	return names, err
}

// checkObject reads all of an object. Content that cannot be read is bad, unless the whole machine is in trouble.
func (c *checker) checkObject(ctx context.Context, d digest.Digest) error {
	path := c.blobPath(d)
	drop := func() error { return errors.Join(os.Remove(path), c.dropRows(d)) }
	size, actual, err := c.hash(ctx, d.Algorithm(), path)
	switch {
	case err == nil && actual == d:
		c.mu.Lock()
		c.report.Objects++
		c.report.Bytes += size
		c.mu.Unlock()
	case err == nil:
		c.found(Problem{Kind: Corrupt, Path: path, Digest: d, Detail: fmt.Sprintf("its %d bytes are %s", size, actual)}, drop)
	case isUnreadable(err):
		c.found(Problem{Kind: Unreadable, Path: path, Digest: d, Detail: err.Error()}, drop)
	default:
		return err
	}
	return nil
}

// isUnreadable reports whether an error is about one file: its permissions, or the disk below it.
func isUnreadable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EUCLEAN) ||
		errors.Is(err, syscall.EBADMSG) || errors.Is(err, syscall.ENODATA)
}

func (c *checker) hash(ctx context.Context, a digest.Algorithm, path string) (size int64, d digest.Digest, err error) {
	f, err := c.open(path)
	if err != nil {
		return 0, "", err
	}
	defer f.Close()
	b := c.buffers.Get().(*[]byte)
	defer c.buffers.Put(b)
	h, buf := a.Hash(), *b
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		size += int64(n)
		c.read(int64(n))
		if err == io.EOF {
			return size, digest.NewDigest(a, h), nil
		} else if err != nil {
			return size, "", err
		}
		if err := c.limiter.WaitN(ctx, n); err != nil {
			return size, "", err
		}
	}
}

// checkFills goes through fills/ and tmp/. Halves of interrupted downloads and temporary files are what a crash leaves.
func (c *checker) checkFills(ctx context.Context) error {
	dir := filepath.Join(c.root, "fills")
	names, err := fileNames(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ext := filepath.Ext(name)
		base := strings.TrimSuffix(name, ext)
		d, err := parseFillName(base)
		switch {
		case err != nil || !contains(names, base+".data") || !contains(names, base+".map"):
			c.report.Leftover++
		case ext == ".map":
			path := filepath.Join(dir, base)
			if err := checkFill(path, d); err != nil {
				c.found(Problem{Kind: BadFill, Path: path + ".map", Digest: d, Detail: err.Error()}, func() error {
					return errors.Join(os.Remove(path+".map"), os.Remove(path+".data"))
				})
			} else {
				c.report.Fills++
			}
		}
	}
	tmp, err := fileNames(filepath.Join(c.root, "tmp"))
	c.report.Leftover += int64(len(tmp))
	return err
}

func checkFill(name string, d digest.Digest) error {
	marks, err := readFile(name+".map", mapHeader+maxSegments/8)
	if err != nil {
		return err
	}
	size, _, _, err := parseMap(marks, d)
	if err != nil {
		return err
	}
	info, err := os.Lstat(name + ".data")
	if err == nil && info.Size() != size {
		err = registry.Errorf(registry.Corrupt, "%d bytes of data, want %d", info.Size(), size)
	}
	return err
}
