package serve_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// rules is what clients need of a mirror beyond the specification, each with the tests that hold it. Rows of TestConformance
// begin with the rule's name. R: routing, M: manifests, B: blobs, A: authentication, P: protocol.
var rules = []struct {
	rule string
	need string
	held []string // directory:Test, or the beginning of a row of TestConformance
}{
	{"R1", "the registry is named by ns, by a path prefix, by both alike, or not at all; an unknown one is a quick 404 without a call",
		[]string{"R1", "registry/serve:TestUpstreamCalls", "cmd/ecr-mirror:TestUnknownNames", "cmd/ecr-mirror:TestRouting"}},
	{"R2", "several names for one mirror: what users write is a string, seldom the mirror's own host", []string{"R2", "config:TestFull"}},

	{"M1", "HEAD and GET with exact media type, length and digest", []string{"end-3 HEAD tag", "end-3 HEAD digest", "end-3 Pulling manifests", "end-3 digest"}},
	{"M2", "never 304", []string{"M2"}},
	{"M3", "a range on a manifest is tolerated", []string{"M3"}},
	{"M4", "Accept does not change the answer", []string{"M4"}},
	{"M5", "a manifest is 404 under blobs", []string{"M5"}},
	{"M6", "manifests of at most 4 MiB", []string{"registry/serve:TestOversizedManifest"}},

	{"B1", "exact length, Accept-Ranges on 200 and 206, never compressed", []string{"B1", "end-2 Pulling blobs", "end-2 range a-b", "end-2 Checking existence"}},
	{"B2", "open, closed, clamped and tiny ranges; several are 400; past the end is 416", []string{"B2", "RFC 9110 14.1.2"}},
	{"B3", "a range that continues a download is never refused", []string{"registry/serve:TestShed", "registry/serve:TestUpstreamErrors", "registry/serve:TestNoAnswer"}},
	{"B4", "what breaks in mid-body ends as an early FIN: no RST, no stall",
		[]string{"registry/serve:TestCutIsFIN", "registry/serve:TestBadBodies", "storage:TestBrokenStreamContinues", "storage:TestDeadUpstream"}},
	{"B5", "the tail waits for the digest; small objects are verified before their first byte",
		[]string{"registry/serve:TestBadBodies", "storage:TestTailIsWithheld", "cmd/ecr-mirror:TestDamagedLayers"}},
	{"B6", "a fill outlives the client that began it; many open ranges, each left after one chunk, are one download",
		[]string{"storage:TestReaderLeaves", "cmd/ecr-mirror:TestChunkedPull"}},
	{"B7", "headers early, or 503 while the client still waits", []string{"registry/serve:TestNoAnswer", "registry/serve:TestNoAnswerInAll", "registry/serve:TestBodyOutlivesHeaderTimeout"}},

	{"A1", "/v2/ is 200, or 401 if credentials are wanted anywhere", []string{"registry/serve:TestHtpasswd", "registry/serve:TestAuthPerMirror", "registry/serve:TestECRToken"}},
	{"A2", "only Basic is offered; 401 for missing, empty and wrong credentials", []string{"registry/serve:TestHtpasswd", "registry/serve:TestECRToken"}},
	{"A3", "who sends headers that a client carries to a redirect's target is not redirected", []string{"registry/serve:TestRedirect"}},

	{"P1", "plain HTTP on loopback, TLS elsewhere, HTTP/1.1 over both, HTTP/2 for those who ask", []string{"cmd/ecr-mirror:TestTLSFilesAreReadAgain", "cmd/ecr-mirror:TestDrain"}},
	{"P2", "Docker-Distribution-Api-Version: registry/2.0", []string{"end-1 Determining Support"}},
	{"P3", "errors as JSON with the right code; 503, never 429", []string{"registry/serve:TestUpstreamErrors", "registry/wire:TestWriteError", "registry/serve:TestShed"}},
	{"P4", "shutdown lets running pulls end", []string{"cmd/ecr-mirror:TestDrain", "cmd/ecr-mirror/e2e:TestStopDrains"}},
}

// TestRulesAreHeld keeps the table above true: what it names exists.
func TestRulesAreHeld(t *testing.T) {
	root := filepath.Join("..", "..")
	source := make(map[string]string) // of a directory's tests
	tests := func(dir string) string {
		if _, ok := source[dir]; !ok {
			files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				source[dir] += string(b)
			}
		}
		return source[dir]
	}
	rows := tests("registry/serve")
	for _, r := range rules {
		for _, at := range r.held {
			dir, name, ok := strings.Cut(at, ":")
			if found := strings.Contains(rows, `{rule: "`+at); !ok && !found {
				t.Errorf("%s (%s): no row %q", r.rule, r.need, at)
			}
			if ok && !regexp.MustCompile(`(?m)^func `+name+`\(`).MatchString(tests(dir)) {
				t.Errorf("%s (%s): no test %s", r.rule, r.need, at)
			}
		}
	}
}

// B4: containerd goes on with a Range after an early FIN and fails the pull after an RST.
func TestCutIsFIN(t *testing.T) {
	w := newWorld(t, nil)
	w.faulty.Body = func(registrytest.Call) *registrytest.Fault {
		return &registrytest.Fault{At: 2 << 20, Err: errors.New("broken")}
	}
	for _, rng := range []string{"", "Range: bytes=0-\r\n", "Range: bytes=1000-\r\n"} {
		conn, err := net.Dial("tcp", w.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: mirror\r\n%s\r\n", w.big.Desc.Digest, rng)
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || n < 1<<20 {
			t.Errorf("%s: %d bytes, then %v; want an early end", rng, n, err)
		}
		if _, err := br.ReadByte(); err != io.EOF { // an RST is another error
			t.Errorf("%s: the connection ended with %v", rng, err)
		}
		conn.Close()
	}
}
