package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// path is what lies between upstream and its clients. The zero value is the loopback as it is.
type path struct {
	latency time.Duration // before every answer, and once more on a new connection
	rate    int64         // bytes per second and connection
}

const (
	repo = "team/app"
	tag  = "v1"
)

func manifestPath(ref string) string { return "/v2/" + repo + "/manifests/" + ref }

func blobPath(d registry.Descriptor) string { return "/v2/" + repo + "/blobs/" + d.Digest.String() }

// upstream is a registry with a layer host, as ECR is one: a blob's GET is answered with 307 to a URL that expires.
type upstream struct {
	host, layers string
	path         path
	read         atomic.Int64 // GETs of manifests

	mu        sync.Mutex
	manifests map[string]registrytest.Node // by tag and digest
	blobs     map[string]*blob             // by digest
}

// blob is one with what was sent of it.
type blob struct {
	body []byte

	sent     atomic.Int64 // bytes
	asked    atomic.Int64 // requests at the layer host
	minted   atomic.Int64 // URLs given out
	validity atomic.Int64 // URLs up to this one have expired

	mu    sync.Mutex
	fault fault
	at    int64 // where the fault strikes, once
	burst int   // requests still to be refused
}

type fault string

const (
	reset    fault = "reset"
	stall    fault = "stall"
	expired  fault = "expired URL"
	burst503 fault = "503 burst"
	burst429 fault = "429 burst"
)

func newUpstream(t testing.TB, p path) *upstream {
	t.Helper()
	u := &upstream{path: p, manifests: make(map[string]registrytest.Node), blobs: make(map[string]*blob)}
	u.host = u.serve(t, u.registry)
	u.layers = u.serve(t, u.layer)
	return u
}

type connKey struct{}

// conn is the state of a client's connection.
type conn struct {
	known bool
	free  time.Time // when the bytes written so far have left at the path's rate
}

func (u *upstream) serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, new(conn))
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(connKey{}).(*conn)
			wait := u.path.latency
			if !c.known {
				c.known, wait = true, 2*wait
			}
			time.Sleep(wait)
			h(w, r)
		}),
	}
	go func() { _ = srv.Serve(l) }() // ends when it is closed
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// image adds an image under tag, and returns it.
func (u *upstream) image(seed uint64, layers ...int) registrytest.Node {
	img := registrytest.Image(seed, layers...)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.manifests[tag], u.manifests[img.Desc.Digest.String()] = img, img
	for _, l := range img.Blobs {
		u.blobs[l.Desc.Digest.String()] = &blob{body: l.Body}
	}
	return img
}

// blob adds a blob of n bytes.
func (u *upstream) blob(seed uint64, n int) (registry.Descriptor, *blob) {
	l := registrytest.NewBlob("application/octet-stream", registrytest.Bytes(seed, n))
	bl := &blob{body: l.Body}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.blobs[l.Desc.Digest.String()] = bl
	return l.Desc, bl
}

// sent returns the bytes of blobs sent since it was last called.
func (u *upstream) sent() (n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, bl := range u.blobs {
		n += bl.sent.Swap(0)
		bl.asked.Store(0)
	}
	return n
}

func (u *upstream) lookup(digest string) *blob {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.blobs[digest]
}

func (u *upstream) registry(w http.ResponseWriter, r *http.Request) {
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch {
	case r.URL.Path == "/v2/":
		_, _ = w.Write([]byte("{}")) // its client left
	case strings.Contains(r.URL.Path, "/manifests/"):
		u.mu.Lock()
		m, ok := u.manifests[name]
		u.mu.Unlock()
		if !ok {
			refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
			return
		}
		h := w.Header()
		h.Set("Content-Type", m.Desc.MediaType)
		h.Set("Content-Length", strconv.Itoa(len(m.Body)))
		h.Set("Docker-Content-Digest", m.Desc.Digest.String())
		if r.Method == http.MethodGet {
			u.read.Add(1)
			_, _ = w.Write(m.Body) // its client left
		}
	case strings.Contains(r.URL.Path, "/blobs/"):
		bl := u.lookup(name)
		if bl == nil {
			refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
			return
		}
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", strconv.Itoa(len(bl.body)))
			w.Header().Set("Docker-Content-Digest", name)
			return
		}
		w.Header().Set("Location", fmt.Sprintf("http://%s/%s?X-Amz-Expires=3600&X-Amz-Signature=%d", u.layers, name, bl.minted.Add(1)))
		w.WriteHeader(http.StatusTemporaryRedirect)
	default:
		refuse(w, http.StatusNotFound, "UNSUPPORTED")
	}
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": code, "message": code}}}) // its client left
}

// layer is S3: it honours a closed or open Range, and refuses a URL that has expired with 403.
func (u *upstream) layer(w http.ResponseWriter, r *http.Request) {
	bl := u.lookup(r.URL.Path[1:])
	if bl == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	bl.asked.Add(1)
	if n, _ := strconv.ParseInt(r.URL.Query().Get("X-Amz-Signature"), 10, 64); n <= bl.validity.Load() {
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>")) // its client left
		return
	}
	if status := bl.refused(); status != 0 {
		w.WriteHeader(status)
		return
	}
	size := int64(len(bl.body))
	from, to, status := int64(0), size, http.StatusOK
	if h := r.Header.Get("Range"); h != "" {
		first, last, _ := strings.Cut(strings.TrimPrefix(h, "bytes="), "-")
		var err error
		if from, err = strconv.ParseInt(first, 10, 64); err != nil || from >= size {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		if end, err := strconv.ParseInt(last, 10, 64); err == nil {
			to = min(end+1, size)
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
		status = http.StatusPartialContent
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Accept-Ranges", "bytes")
	w.Header().Set("Content-Length", strconv.FormatInt(to-from, 10))
	w.WriteHeader(status)
	u.send(w, r, bl, from, to)
}

// send writes a span of bl at the path's rate, until a fault strikes.
func (u *upstream) send(w http.ResponseWriter, r *http.Request, bl *blob, from, to int64) {
	c := r.Context().Value(connKey{}).(*conn)
	step := int64(256 * kib)
	if u.path.rate > 0 {
		step = 32 * kib
	}
	for from < to {
		end := min(from+step, to)
		f := bl.strikes(from, end)
		n, err := w.Write(bl.body[from:end])
		bl.sent.Add(int64(n))
		if err != nil {
			return
		}
		if f != "" {
			_ = http.NewResponseController(w).Flush() // the cut follows
			if f == stall {
				<-r.Context().Done()
			}
			panic(http.ErrAbortHandler)
		}
		from = end
		if u.path.rate == 0 {
			continue
		}
		if now := time.Now(); c.free.Before(now.Add(-20 * time.Millisecond)) { // idle time is not saved up
			c.free = now
		}
		c.free = c.free.Add(time.Duration(int64(n) * int64(time.Second) / u.path.rate))
		time.Sleep(time.Until(c.free))
	}
}

// fail has f strike at the byte in the middle, once.
func (bl *blob) fail(f fault) {
	bl.mu.Lock()
	defer bl.mu.Unlock()
	bl.fault, bl.at, bl.burst = f, int64(len(bl.body)/2), 0
}

func (bl *blob) strikes(from, to int64) fault {
	bl.mu.Lock()
	defer bl.mu.Unlock()
	if bl.fault == "" || bl.at < from || bl.at >= to {
		return ""
	}
	switch bl.fault {
	case expired:
		bl.validity.Store(bl.minted.Load())
	case burst503, burst429:
		bl.burst = 3
		return bl.fault
	}
	f := bl.fault
	bl.fault = ""
	return f
}

// refused counts down a burst.
func (bl *blob) refused() int {
	bl.mu.Lock()
	defer bl.mu.Unlock()
	if bl.burst == 0 {
		return 0
	}
	status := http.StatusServiceUnavailable
	if bl.fault == burst429 {
		status = http.StatusTooManyRequests
	}
	if bl.burst--; bl.burst == 0 {
		bl.fault = ""
	}
	return status
}
