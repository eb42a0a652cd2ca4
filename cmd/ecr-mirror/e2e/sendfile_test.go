package e2e

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// Bytes leave by sendfile, from a complete blob and from one that still grows; also while each request is traced, for a collector
// that is not there.
func TestSendfile(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "strace", "docker-registry")
	n := image(t, "amd64", "sent", 8<<20)
	layer := n.Blobs[len(n.Blobs)-1]
	registry := dockerRegistry(t)
	push(t, registry, "team/app", "1", n)
	for name, top := range map[string]string{"plain": "", "spans": "traces: {endpoint: \"http://127.0.0.1:1\", sample: 1}\n"} {
		t.Run(name, func(t *testing.T) { sendsFiles(t, registry, layer, top) })
	}
}

func sendsFiles(t *testing.T, registry string, layer registrytest.Blob, top string) {
	half := layer.Desc.Size / 2
	source := newGate(t, registry, &gate{holdFrom: half})
	m := newMirror(t, nil, "{none: true}", top, plain(registryName, source.addr, ""))
	m.start(t)
	if _, err := get("http://" + m.addr + "/v2/team/app/manifests/1"); err != nil {
		t.Fatal(err)
	}

	traced(t, m, half-1<<20, func() {
		res, err := open(blobURL(m.addr, "team/app", layer.Desc.Digest))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }() // the fill does not need this reader
		if _, err := io.CopyN(io.Discard, res.Body, half-1<<20); err != nil {
			t.Fatal(err)
		}
	})
	source.open()
	fetchAll(t, m, layer)
	traced(t, m, layer.Desc.Size, func() { fetchAll(t, m, layer) })
}

func fetchAll(t *testing.T, m *mirror, layer registrytest.Blob) {
	t.Helper()
	if err := fetch(t, m.addr, "team/app", layer); err != nil {
		t.Fatal(err)
	}
}

var sendfiles = regexp.MustCompile(`(?m)sendfile(?:64)?\b.*= (\d+)$`)

// traced checks that m's process sends want bytes by sendfile during do. The first few may leave with the header.
func traced(t *testing.T, m *mirror, want int64, do func()) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	p := start(t, nil, "strace", "-f", "-e", "trace=sendfile", "-o", log, "-p", strconv.Itoa(m.Process.Pid))
	p.wait(t, "attached", func() bool { return strings.Contains(p.stderr.String(), "attached") })
	do()
	// The last call may return after its bytes have arrived.
	eventually(t, fmt.Sprintf("sendfile sent %d bytes", want), func() bool { return sent(t, log) >= want-64<<10 })
	_ = p.Process.Signal(syscall.SIGINT) // detaches
	<-p.done
}

// sent adds up what the calls in a trace returned.
func sent(t *testing.T, log string) (sum int64) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range sendfiles.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseInt(match[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}
