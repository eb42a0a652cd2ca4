package docs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// images pushes what the documents pull: each is at the source, and its event on its way.
func (w *world) images() error {
	source, err := remote.New(remote.Options{Registry: "http://" + w.emu.RegistryHost(reader, home), Username: "AWS", Password: w.emu.Token(reader, home)})
	if err != nil {
		return err
	}
	for repo, tags := range map[string][]string{"team/app": {"v1", "1", "v2"}, "hello-app": {"v3"}} {
		if err := w.emu.Registry(reader, home).CreateRepository(repo); err != nil {
			return err
		}
		for _, tag := range tags {
			if err := pushImage(source, repo, tag); err != nil {
				return fmt.Errorf("push %s:%s: %w", repo, tag, err)
			}
		}
	}
	return nil
}

// pushImage pushes a small image that a runtime can unpack, with a greeting in it.
func pushImage(to registry.Writer, repo, tag string) error {
	var plain, packed bytes.Buffer
	tw := tar.NewWriter(&plain)
	text := []byte("hello from " + repo + ":" + tag + "\n")
	errs := []error{tw.WriteHeader(&tar.Header{Name: "greeting.txt", Mode: 0o644, Size: int64(len(text))})}
	_, err := tw.Write(text)
	errs = append(errs, err, tw.Close())
	gz := gzip.NewWriter(&packed)
	_, err = gz.Write(plain.Bytes())
	config, encodeErr := json.Marshal(ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, Config: ocispec.ImageConfig{Cmd: []string{"/greeting.txt"}},
		RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain.Bytes())}}})
	if err := errors.Join(append(errs, err, encodeErr, gz.Close())...); err != nil {
		return err
	}
	blobs := []registrytest.Blob{registrytest.NewBlob(ocispec.MediaTypeImageConfig, config), registrytest.NewBlob(ocispec.MediaTypeImageLayerGzip, packed.Bytes())}
	body, err := json.Marshal(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: blobs[0].Desc, Layers: []registry.Descriptor{blobs[1].Desc}})
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := to.PutBlob(context.Background(), repo, b.Desc, bytes.NewReader(b.Body)); err != nil {
			return err
		}
	}
	return to.PutManifest(context.Background(), repo, tag, registry.DescriptorOf(ocispec.MediaTypeImageManifest, body), body)
}

// files are those that the documents name and that the reader has: the repository's deploy, and what a configuration refers to.
func (w *world) files() error {
	if err := os.CopyFS(w.work(), os.DirFS("testdata/work")); err != nil {
		return err
	}
	if _, err := os.Stat("../deploy"); err == nil {
		if err := os.CopyFS(w.path("work", "deploy"), os.DirFS("../deploy")); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(w.path("work", "bin"), 0o755); err != nil {
		return err
	}
	if err := os.CopyFS("/etc/ecr-mirror", os.DirFS(w.work())); err != nil {
		return err
	}
	return os.Rename("/etc/ecr-mirror/ecr-mirror.yaml", "/etc/ecr-mirror/config.yaml")
}
