package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// What there is to push.
const (
	ciPushers = 2
	ciRepos   = 3 // of each pusher: nobody else writes there
	ciTags    = 5 // that are moved
	ciImages  = 25
)

// ci is who pushes to the source, moves tags and deletes.
type ci struct {
	s      *storm
	server *httptest.Server
	layers []registrytest.Blob
	alive  [ciPushers][]stored // what is there
	dead   [ciPushers][]stored
	made   [ciPushers]int
}

func newCI(t *testing.T, s *storm) *ci {
	t.Helper()
	c := &ci{s: s, server: httptest.NewServer(s.emu.RegistryHandler(account, sourceRegion))}
	t.Cleanup(c.server.Close)
	r := s.random("layers")
	for i := range 120 { // some 60 MiB: more than the mirrors' disks take
		size := 1 + r.IntN(64<<10)
		switch i % 10 {
		case 0:
			size = 2<<20 + r.IntN(3<<20)
		case 1, 2:
			size = 64<<10 + r.IntN(1<<20)
		}
		c.layers = append(c.layers, registrytest.NewBlob(ocispec.MediaTypeImageLayerGzip, registrytest.Bytes(s.seed<<8+uint64(i), size)))
	}
	source := s.emu.Registry(account, sourceRegion)
	for p := range ciPushers {
		for i := range ciRepos {
			if err := source.CreateRepository(ciRepo(p, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

func ciRepo(pusher, i int) string { return fmt.Sprintf("team-%d/app-%d", pusher, i) }

// step is one thing that pusher p does.
func (c *ci) step(r *rand.Rand, p int) (what, result string) {
	time.Sleep(time.Duration(r.IntN(200)) * time.Millisecond)
	repo := ciRepo(p, r.IntN(ciRepos))
	tag := fmt.Sprint("v", r.IntN(ciTags))
	var err error
	switch n := r.IntN(20); {
	case len(c.alive[p]) > ciImages || n < 4 && len(c.alive[p]) > 5:
		i := r.IntN(len(c.alive[p]))
		if n%2 == 0 {
			what, err = c.untag(p, i)
		} else {
			what, err = c.remove(p, i)
		}
	case n == 4 && len(c.dead[p]) > 0: // what was deleted comes back
		what, err = c.push(p, c.dead[p][r.IntN(len(c.dead[p]))].again(tag))
	case n < 8 && len(c.alive[p]) > 0: // a tag moves
		what, err = c.push(p, c.alive[p][r.IntN(len(c.alive[p]))].again(tag))
	case n == 8:
		what, err = c.push(p, stored{repo, tag, registrytest.Index(c.image(r, p), c.image(r, p))})
	case n == 9 && len(c.alive[p]) > 0:
		about := c.alive[p][r.IntN(len(c.alive[p]))]
		what, err = c.push(p, stored{about.repo, "", registrytest.Referrer(about.node.Desc, "application/vnd.example.sbom", []byte(fmt.Sprint(p, r.Uint64())))})
	case n == 10: // by digest alone
		what, err = c.push(p, stored{repo, "", c.image(r, p)})
	default:
		what, err = c.push(p, stored{repo, tag, c.image(r, p)})
	}
	if err != nil {
		c.s.t.Errorf("pusher %d: %s: %v", p, what, err)
		return what, err.Error()
	}
	return what, "ok"
}

// again is the image under another tag.
func (i stored) again(tag string) stored { return stored{i.repo, tag, i.node} }

// image has up to four of the layers, and a config of its own.
func (c *ci) image(r *rand.Rand, p int) registrytest.Node {
	c.made[p]++
	config := registrytest.NewBlob(ocispec.MediaTypeImageConfig, encode(c.s.t, ocispec.Image{Author: fmt.Sprint(c.s.seed, p, c.made[p]),
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config.Desc}
	blobs := []registrytest.Blob{config}
	for _, i := range r.Perm(len(c.layers))[:1+r.IntN(4)] {
		m.Layers = append(m.Layers, c.layers[i].Desc)
		blobs = append(blobs, c.layers[i])
	}
	body := encode(c.s.t, m)
	return registrytest.Node{Desc: registry.DescriptorOf(m.MediaType, body), Body: body, Blobs: blobs}
}

func (c *ci) push(p int, i stored) (string, error) {
	m := c.s.model
	what := fmt.Sprintf("push %s:%s@%s", i.repo, i.tag, i.node.Desc.Digest)
	err := c.put(m, i.repo, i.tag, i.node)
	if err != nil {
		return what, err
	}
	c.dead[p] = without(c.dead[p], i)
	c.alive[p] = append(without(c.alive[p], i), i)
	m.add(i)
	return what, nil
}

// put writes n bottom-up.
func (c *ci) put(m *model, repo, tag string, n registrytest.Node) error {
	m.know(n)
	for _, b := range n.Blobs {
		if err := c.blob(repo, b); err != nil {
			return err
		}
	}
	for _, child := range n.Children {
		if err := c.put(m, repo, "", child); err != nil {
			return err
		}
	}
	return m.change(repo+"@"+n.Desc.Digest.String(), "there", func() error {
		write := func(ref string) error {
			_, err := c.send(http.MethodPut, "/v2/"+repo+"/manifests/"+url.PathEscape(ref), n.Desc.MediaType, n.Body, http.StatusCreated)
			return err
		}
		if tag == "" {
			return write(n.Desc.Digest.String())
		}
		return m.change(repo+":"+tag, n.Desc.Digest, func() error { return write(tag) })
	})
}

func (c *ci) blob(repo string, b registrytest.Blob) error {
	if _, err := c.send(http.MethodHead, "/v2/"+repo+"/blobs/"+b.Desc.Digest.String(), "", nil, http.StatusOK); err == nil {
		return nil
	}
	res, err := c.send(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", "", nil, http.StatusAccepted)
	if err != nil {
		return err
	}
	at, err := url.Parse(res.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := at.Query()
	q.Set("digest", b.Desc.Digest.String())
	_, err = c.send(http.MethodPut, at.Path+"?"+q.Encode(), "application/octet-stream", b.Body, http.StatusCreated)
	return err
}

// untag removes a tag that an image has: the image goes with its last.
func (c *ci) untag(p, i int) (string, error) {
	img, m := c.alive[p][i], c.s.model
	digest, now := img.node.Desc.Digest, time.Now()
	for t := range ciTags {
		tag := fmt.Sprint("v", t)
		if !m.held(img.repo+":"+tag, digest, now, now) {
			continue
		}
		path := "/v2/" + img.repo + "/manifests/"
		err := m.change(img.repo+"@"+digest.String(), "", func() error {
			return m.change(img.repo+":"+tag, "", func() error {
				_, err := c.send(http.MethodDelete, path+tag, "", nil, http.StatusAccepted)
				return err
			})
		})
		if err != nil {
			return "untag " + tag, err
		}
		if _, err := c.send(http.MethodHead, path+digest.String(), "", nil, http.StatusOK); err == nil {
			err = m.change(img.repo+"@"+digest.String(), "there", func() error { return nil })
			return fmt.Sprintf("untag %s:%s of %s", img.repo, tag, digest), err
		}
		return fmt.Sprintf("untag %s:%s, the last of %s", img.repo, tag, digest), c.gone(p, img)
	}
	return c.remove(p, i)
}

// gone is told that the image is deleted. The images of an index go as well.
func (c *ci) gone(p int, img stored) error {
	c.alive[p] = without(c.alive[p], img)
	c.dead[p] = append(c.dead[p], img)
	for _, child := range img.node.Children {
		key := img.repo + "@" + child.Desc.Digest.String()
		err := c.s.model.change(key, "", func() error {
			_, err := c.send(http.MethodDelete, "/v2/"+img.repo+"/manifests/"+child.Desc.Digest.String(), "", nil, http.StatusAccepted)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// remove deletes an image with all its tags, unless an index refers to it.
func (c *ci) remove(p, i int) (string, error) {
	img, m := c.alive[p][i], c.s.model
	what := fmt.Sprintf("delete %s@%s", img.repo, img.node.Desc.Digest)
	remove := func() error {
		_, err := c.send(http.MethodDelete, "/v2/"+img.repo+"/manifests/"+img.node.Desc.Digest.String(), "", nil, http.StatusAccepted)
		return err
	}
	for t := range ciTags {
		key, next := fmt.Sprintf("%s:v%d", img.repo, t), remove
		now := time.Now()
		if m.held(key, img.node.Desc.Digest, now, now) {
			remove = func() error { return m.change(key, "", next) }
		}
	}
	err := m.change(img.repo+"@"+img.node.Desc.Digest.String(), "", remove)
	if err != nil {
		return what, err
	}
	return what, c.gone(p, img)
}

// without returns all of the images but those of i's digest in its repository.
func without(all []stored, i stored) (others []stored) {
	for _, o := range all {
		if o.repo != i.repo || o.node.Desc.Digest != i.node.Desc.Digest {
			others = append(others, o)
		}
	}
	return others
}

// send asks the source, as docker push does; again if the source is away for a moment, or the clock jumped past its
// token's end.
func (c *ci) send(method, path, contentType string, body []byte, want int) (*http.Response, error) {
	var last error
	for range 100 {
		req, err := http.NewRequestWithContext(context.Background(), method, c.server.URL+path, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.SetBasicAuth("AWS", c.s.emu.Token(account, sourceRegion))
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			last = err
			time.Sleep(200 * time.Millisecond)
			continue
		}
		text, _ := io.ReadAll(res.Body) // for the message below
		_ = res.Body.Close()            // read to its end
		if res.StatusCode == want {
			return res, nil
		}
		if last = fmt.Errorf("%s %s: %s, want %d: %s", method, path, res.Status, want, text); res.StatusCode != http.StatusForbidden {
			break
		}
	}
	return nil, last
}
