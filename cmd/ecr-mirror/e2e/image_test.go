package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"hash/crc32"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// image returns an image that runs: it prints text and the architecture. extra random bytes are a second layer.
func image(t *testing.T, arch, text string, extra int) registrytest.Node {
	t.Helper()
	if extra == 0 {
		return layered(t, arch, text)
	}
	return layered(t, arch, text, layer(t, file{"random-" + text, random(text, extra)}))
}

// layered is image with further layers.
func layered(t *testing.T, arch, text string, further ...packedLayer) registrytest.Node {
	t.Helper()
	cfg := ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config:   ocispec.ImageConfig{Entrypoint: []string{"/hello"}, Cmd: []string{text}},
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	var layers []registrytest.Blob
	add := func(l packedLayer) {
		layers = append(layers, l.blob)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, l.plain)
	}
	add(helloLayer(t, arch))
	for _, l := range further {
		add(l)
	}
	return manifest(t, registrytest.NewBlob(ocispec.MediaTypeImageConfig, encode(t, cfg)), layers...)
}

// manifest returns what has a config and layers.
func manifest(t *testing.T, config registrytest.Blob, layers ...registrytest.Blob) registrytest.Node {
	t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config.Desc}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Desc)
	}
	body := encode(t, m)
	return registrytest.Node{Desc: registry.DescriptorOf(m.MediaType, body), Body: body, Blobs: append([]registrytest.Blob{config}, layers...)}
}

// random returns size bytes that are text's own.
func random(text string, size int) []byte {
	return registrytest.Bytes(uint64(crc32.ChecksumIEEE([]byte(text))), size)
}

// multiArch returns an index over image for amd64 and arm64.
func multiArch(t *testing.T, text string, extra int) registrytest.Node {
	t.Helper()
	return registrytest.Index(image(t, "amd64", text, extra), image(t, "arm64", text, extra))
}

// printed is what a container of an image with that text prints here.
func printed(text string) string { return text + " " + runtime.GOARCH }

// packedLayer is a layer with the digest of what is in it.
type packedLayer struct {
	blob  registrytest.Blob
	plain digest.Digest
}

// helloLayers are made once for an architecture: compressing takes long under the race detector.
var helloLayers sync.Map

func helloLayer(t *testing.T, arch string) packedLayer {
	t.Helper()
	if l, ok := helloLayers.Load(arch); ok {
		return l.(packedLayer)
	}
	program, err := os.ReadFile(hello(t, arch))
	if err != nil {
		t.Fatal(err)
	}
	l, _ := helloLayers.LoadOrStore(arch, layer(t, file{"hello", program}))
	return l.(packedLayer)
}

// file is one in a layer.
type file struct {
	name string
	body []byte
}

func layer(t *testing.T, files ...file) packedLayer {
	t.Helper()
	var tarred, zipped bytes.Buffer
	w := tar.NewWriter(&tarred)
	var err error
	for _, f := range files {
		if err == nil {
			err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o755, Size: int64(len(f.body))})
		}
		if err == nil {
			_, err = w.Write(f.body)
		}
	}
	if err == nil {
		err = w.Close()
	}
	z, zipErr := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err == nil {
		err = zipErr
	}
	if err == nil {
		_, err = z.Write(tarred.Bytes())
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return packedLayer{registrytest.NewBlob(ocispec.MediaTypeImageLayerGzip, zipped.Bytes()), digest.FromBytes(tarred.Bytes())}
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// push writes n bottom-up to the registry at addr as distribution-spec says ("Pushing blobs", POST then PUT). It is not the
// project's own client, which is under test.
func push(t *testing.T, addr, repo, tag string, n registrytest.Node) {
	t.Helper()
	base := "http://" + addr + "/v2/" + repo
	for _, b := range n.Blobs {
		res := send(t, http.MethodPost, base+"/blobs/uploads/", "", nil, http.StatusAccepted)
		at, err := res.Request.URL.Parse(res.Header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		q := at.Query()
		q.Set("digest", b.Desc.Digest.String())
		at.RawQuery = q.Encode()
		send(t, http.MethodPut, at.String(), "application/octet-stream", b.Body, http.StatusCreated)
	}
	for _, c := range n.Children {
		push(t, addr, repo, "", c)
	}
	if tag == "" {
		tag = n.Desc.Digest.String()
	}
	send(t, http.MethodPut, base+"/manifests/"+url.PathEscape(tag), n.Desc.MediaType, n.Body, http.StatusCreated)
}

func send(t *testing.T, method, url, contentType string, body []byte, want int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close() // only status and headers count
	if res.StatusCode != want {
		t.Fatalf("%s %s: %s, want %d", method, url, res.Status, want)
	}
	return res
}

// ref is a reference by digest.
func ref(name string, n registrytest.Node) string {
	return strings.Join([]string{name, n.Desc.Digest.String()}, "@")
}
