package serve_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// TestSlowReaders holds that a client that takes a little now and then survives the write timeout, that one that
// takes nothing does not hold its slot for ever, and that a connection's next request has a deadline of its own.
func TestSlowReaders(t *testing.T) {
	w := newWorld(t, func(o *serve.Options) { o.WriteTimeout = 1500 * time.Millisecond; o.MaxConcurrent = 1 })
	blob := registrytest.NewBlob("application/octet-stream", registrytest.Bytes(5, 16<<20)) // more than the kernel buffers
	if err := w.mem.PutBlob(t.Context(), "app", blob.Desc, bytes.NewReader(blob.Body)); err != nil {
		t.Fatal(err)
	}
	big := "/v2/app/blobs/" + blob.Desc.Digest.String()
	get := func() (net.Conn, *http.Response) {
		c, err := net.Dial("tcp", w.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.(*net.TCPConn).SetReadBuffer(128 << 10); err != nil { // no less than loopback's segments, or it crawls
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: mirror\r\n\r\n", big)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c, resp
	}

	c, resp := get()
	var got int64
	for begun := time.Now(); time.Since(begun) < 3*time.Second; time.Sleep(25 * time.Millisecond) {
		n, err := io.CopyN(io.Discard, resp.Body, 100_000)
		if got += n; err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
	}
	n, err := io.Copy(io.Discard, resp.Body)
	if got += n; err != nil || got != int64(len(blob.Body)) {
		t.Fatalf("%d bytes, %v", got, err)
	}
	time.Sleep(1600 * time.Millisecond) // past the last deadline
	fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHost: mirror\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("the next request on the connection: %v", err)
	}

	_, resp = get() // and reads nothing
	defer resp.Body.Close()
	for range 200 {
		if a := w.do(t, "GET", "/v2/app/manifests/v1"); a.status == 200 {
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Error("a client that takes nothing still holds its slot after 5 s")
}

// TestBadRequests holds that what is no request of the protocol is refused by the server or the front, not looked up.
func TestBadRequests(t *testing.T) {
	w := newWorld(t, nil)
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"huge header":      {"GET /v2/ HTTP/1.1\r\nHost: m\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", 431},
		"huge path":        {"GET /v2/" + strings.Repeat("a/", 100_000) + "manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"dots":             {"GET /v2/../../etc/passwd/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"escaped dots":     {"GET /v2/a/%2e%2e/b/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"escaped NUL":      {"GET /v2/a%00/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"escaped newline":  {"GET /v2/app/manifests/v1%0d%0aX:%20y HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"asterisk":         {"OPTIONS * HTTP/1.1\r\nHost: m\r\n\r\n", 200}, // net/http's own answer
		"CONNECT":          {"CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: m\r\n\r\n", 404},
		"absolute form":    {"GET http://169.254.169.254/v2/nobody/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n", 404}, // the path alone counts
		"ns of a URL":      {"GET /v2/app/manifests/v1?ns=http://169.254.169.254/ HTTP/1.1\r\nHost: m\r\n\r\n", 404},
		"ns of garbage":    {"GET /v2/app/manifests/v1?ns=%00%ff HTTP/1.1\r\nHost: m\r\n\r\n", 404},
		"long ns":          {"GET /v2/app/manifests/v1?ns=" + strings.Repeat("a", 300) + " HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		"body with a GET":  {"GET /v2/ HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc", 200},
		"push with a body": {"PUT /v2/app/manifests/v1 HTTP/1.1\r\nHost: m\r\nContent-Length: 3\r\n\r\nabc", 405},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", w.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			sent := make(chan struct{})
			go func() { defer close(sent); io.WriteString(conn, c.request) }() // the server may close before it has read all
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("%d, want %d", resp.StatusCode, c.status)
			}
			if b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20)); len(b) > 4096 {
				t.Errorf("%d bytes of answer", len(b))
			}
			conn.Close()
			<-sent
		})
	}
	if w.faulty.Count("open", "stat", "tags", "referrers") != 0 || w.faulty.Count("resolve") > 1 {
		t.Errorf("looked up: %v", w.faulty.Calls())
	}
}
