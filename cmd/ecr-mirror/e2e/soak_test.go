package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// soakImages is how many images TestSoak pushes; make soak has SOAK_IMAGES=1000.
func soakImages(t *testing.T) int {
	t.Helper()
	text := os.Getenv("SOAK_IMAGES")
	if text == "" {
		return 60
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("SOAK_IMAGES=%q: want a number from 1", text)
	}
	return n
}

// Images are pushed while events are lost, repeated and shuffled, destinations throttle and the mirrors are killed every few
// seconds. At the end source and destinations agree digest for digest, and no blob crossed more than once per region, but
// for those that a kill cut.
func TestSoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, 1, [2]string{account, "eu-central-1"}, [2]string{otherAccount, "ap-southeast-1"})
	w.soak(soakImages(t))
	for _, r := range w.mirrors {
		if r.refuse > 0 {
			t.Errorf("%s: ECR refused %d calls for our rate", r.name, r.refuse)
		}
	}
}

// Two replicas share the work of one region. A layer that two images have in common may cross once to each.
func TestSoakReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, 2, [2]string{otherAccount, "ap-southeast-1"})
	w.soak(soakImages(t))
	for _, r := range w.mirrors {
		t.Logf("%s: ECR refused %d calls: each replica takes half of the quota, and a full second's worth when it starts", r.name, r.refuse)
	}
}

// soak pushes, kills and compares.
func (w *world) soak(images int) {
	t := w.t
	for _, r := range w.mirrors {
		r.serve(len(w.mirrors) > 1 && w.mirrors[0].queue == w.mirrors[1].queue)
	}
	began := time.Now()
	kills, next := 0, began.Add(2*time.Second)
	kill := func() { // every few seconds, one mirror after the other
		if time.Now().After(next) {
			w.mirrors[kills%len(w.mirrors)].restart()
			kills++
			next = time.Now().Add(1500*time.Millisecond + time.Duration(kills%5)*500*time.Millisecond)
		}
	}
	sizes := w.pushAll(images, kill)
	// A mirror writes 5 manifests a second, half of ECR's quota: they are killed while they are at it.
	for end := began.Add(time.Duration(images) * time.Second / 6); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		kill()
	}
	for _, r := range w.mirrors { // each starts with a sweep, which finds the lost events
		r.restart()
	}

	want := w.catalog(account, sourceRegion)
	for _, r := range w.mirrors {
		within(t, 2*time.Minute+time.Duration(images)*time.Second, r.name+" agrees with the source", func() bool {
			return len(missing(want, w.catalog(r.account, r.region))) == 0 && r.idle()
		}, func() {
			lost := missing(want, w.catalog(r.account, r.region))
			t.Errorf("%s lacks %d of %d: %.2000v", r.name, len(lost), len(want), lost)
			t.Log(r.adminGet("/status?state=pending") + r.adminGet("/status?state=dead"))
		})
		if extra := missing(w.catalog(r.account, r.region), want); len(extra) > 0 {
			t.Errorf("%s has what the source has not: %.2000v", r.name, extra)
		}
		if letters := r.adminGet("/dead-letters"); letters != "" {
			t.Errorf("%s has dead letters:\n%.4000s", r.name, letters)
		}
		r.checkCrossings(t, sizes)
	}
	t.Logf("%d images agree after %v", images, time.Since(began).Round(time.Second))
}

// pushAll pushes n images, as fast as the source's own quota lets it, with a call of between after each, and returns the sizes of all blobs.
func (w *world) pushAll(n int, between func()) map[digest.Digest]int64 {
	w.t.Helper()
	quota := rate.NewLimiter(8, 1) // PutImage: 10 a second
	sizes := make(map[digest.Digest]int64)
	push := func(repo, tag string, node registrytest.Node) {
		if err := w.source.CreateRepository(repo); err != nil && !strings.Contains(err.Error(), "already exists") {
			w.t.Fatal(err)
		}
		for range 1 + len(node.Children) {
			if err := quota.Wait(w.t.Context()); err != nil {
				w.t.Fatal(err)
			}
		}
		registrytest.Push(w.t, w.push, repo, tag, node)
		for _, c := range append([]registrytest.Node{node}, node.Children...) {
			for _, b := range c.Blobs {
				sizes[b.Desc.Digest] = b.Desc.Size
			}
		}
	}
	for i := range n {
		repo, tag := fmt.Sprintf("team-%d/app", i%7), fmt.Sprintf("v%d", i)
		node := soakImage(w.t, i)
		switch {
		case i%10 == 3: // two platforms
			node = registrytest.Index(node, soakImage(w.t, i+1_000_000))
		case i%10 == 7: // a tag that moves there and back
			push(repo, tag, node)
			push(repo, tag, soakImage(w.t, i+2_000_000))
		case i%10 == 9: // an artifact about the image before it
			node = registrytest.Referrer(node.Desc, "application/vnd.example.sbom", []byte(tag))
			tag = ""
		}
		push(repo, tag, node)
		between()
	}
	return sizes
}

// soakImage has a layer of its own, one that it shares with others of its repository, and one that all share.
func soakImage(t *testing.T, i int) registrytest.Node {
	t.Helper()
	layer := func(seed, size int) registrytest.Blob {
		return registrytest.NewBlob(ocispec.MediaTypeImageLayerGzip, registrytest.Bytes(uint64(seed), size))
	}
	layers := []registrytest.Blob{layer(1, 2<<20), layer(2+i%7, 300<<10), layer(100+i, 20<<10+i%50)}
	config := registrytest.NewBlob(ocispec.MediaTypeImageConfig, encode(t, ocispec.Image{Author: fmt.Sprint(i),
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}))
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config.Desc}
	for _, l := range layers {
		m.Layers = append(m.Layers, l.Desc)
	}
	body := encode(t, m)
	return registrytest.Node{Desc: registry.DescriptorOf(m.MediaType, body), Body: body, Blobs: append([]registrytest.Blob{config}, layers...)}
}

// checkCrossings counts how often each blob crossed to the mirror. It may have crossed again only after a kill that cut the
// read before it, or its way to the disk; and now and then because a loaded machine kept an answer for so long that the mirror
// asked once more (storage, silence).
func (r *replica) checkCrossings(t *testing.T, sizes map[digest.Digest]int64) {
	t.Helper()
	const toDisk, patience = 4 * time.Second, 30 * time.Second // of a loaded machine
	var crossed, total int64
	cut, again := 0, 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, reads := range r.reads {
		var bytes int64
		for _, c := range reads {
			bytes += c.bytes
		}
		crossed += bytes
		total += sizes[d]
		if bytes <= sizes[d] {
			continue
		}
		last, killed, hedged := reads[len(reads)-1].from, false, false
		for _, c := range reads[:len(reads)-1] {
			for _, kill := range r.kills {
				killed = killed || !kill.Before(c.from) && !kill.After(c.to.Add(toDisk)) && !last.Before(kill)
			}
			hedged = hedged || last.Sub(c.from) < patience
		}
		switch {
		case killed:
			cut++
		case hedged:
			again++
		default:
			t.Errorf("%s: %d bytes of %s crossed, in %d reads; it has %d, and no kill cut it", r.name, bytes, d, len(reads), sizes[d])
		}
	}
	if again > 1+len(r.reads)/20 {
		t.Errorf("%s: %d of %d blobs were asked for once more for want of an answer", r.name, again, len(r.reads))
	}
	t.Logf("%s: %d blobs, %d bytes; %d bytes crossed; %d blobs crossed again, in part or whole, cut by one of %d kills, and %d for want of an answer",
		r.name, len(r.reads), total, crossed, cut, len(r.kills), again)
}

// idle reports whether the mirror has nothing to do.
func (r *replica) idle() bool {
	all, _ := r.w.emu.QueueLen(account, sourceRegion, r.queue)
	if all > 0 {
		return false
	}
	for _, state := range []string{"pending", "leased"} {
		var page struct{ Images []json.RawMessage }
		if err := json.Unmarshal([]byte(r.adminGet("/status?state="+state)), &page); err != nil {
			r.w.t.Fatal(err)
		}
		if len(page.Images) > 0 {
			return false
		}
	}
	return true
}

// missing returns what of want have lacks.
func missing(want, have map[string]bool) (lost []string) {
	for k := range want {
		if !have[k] {
			lost = append(lost, k)
		}
	}
	return lost
}

// within polls until ok, and calls failed when it does not come about in time.
func within(t *testing.T, limit time.Duration, what string, ok func() bool, failed func()) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(deadline) {
			failed()
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}
