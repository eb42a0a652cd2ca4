package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// writeTable has TestClients write its table instead of comparing it: what clients did not run keeps its row.
var writeTable = flag.Bool("update", false, "write docs/clients.md")

var tableFile = filepath.Join("..", "..", "..", "docs", "clients.md")

// situation is what a client pulls in. The mirror is between it and a registry, the origin, which a client that knows it may go
// to instead.
type situation struct {
	name     string
	digest   bool // pull by digest
	warm     bool // the mirror has it all, and its source is gone
	auth     bool // the mirror asks for credentials
	have     bool // the client has them
	down     bool // nobody listens
	kill     bool // kill -9 in mid-pull
	onTheWay act
}

var situations = []situation{
	{name: "cold, tag"}, {name: "cold, digest", digest: true},
	{name: "warm, tag", warm: true}, {name: "warm, digest", warm: true, digest: true},
	{name: "credentials", auth: true, have: true}, {name: "no credentials", auth: true},
	{name: "down", down: true}, {name: "killed", kill: true}, {name: "cut", onTheWay: cut}, {name: "stalled", onTheWay: stall},
}

// What a pull came to.
const (
	fromMirror = "mirror" // all from the mirror
	fromOrigin = "origin" // it went on, or all the way, with the origin
	didFail    = "fails"
	didWait    = "waits" // for longer than stallTime
)

// stallTime is how long a pull may take once nothing more comes, for it may wait for ever; pullTime is for any other.
const (
	stallTime = 5 * time.Second
	pullTime  = 2 * time.Minute
)

// request is one pull.
type request struct {
	origin, mirror string // hosts; nobody but the configuration says that one is the other's mirror
	repo, ref      string // ref is :tag or @digest
	user, password string // for the mirror; "": none
	dir            string // for what the client needs
}

func (r request) atOrigin() string { return r.origin + "/" + r.repo + r.ref }
func (r request) atMirror() string { return r.mirror + "/" + r.repo + r.ref }

// TestClients pulls with every client in every situation and compares what came of it with docs/clients.md.
func TestClients(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-registry")
	table := readTable(t)
	var mu sync.Mutex
	t.Cleanup(func() {
		if *writeTable && !t.Failed() {
			write(t, tableFile, table.String())
		}
	})
	source := dockerRegistry(t)
	for _, c := range clients() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			programs.Need(t, c.needs...)
			pull := c.start(t)
			for _, s := range situations {
				got := c.cell(t, s, source, pull)
				mu.Lock()
				want := table.at(c.name, s.name)
				if one := slices.Contains(strings.Split(want, " or "), got); !one && !*writeTable {
					t.Errorf("%s: %s, but %s says %q", s.name, got, tableFile, want)
				} else if one {
					got = want
				}
				table.set(c.name, c.about, s.name, got)
				mu.Unlock()
			}
		})
	}
}

// content is what a client pulls, with a layer of 3 MiB that is text's own: an image that is for this architecture and another.
func (c client) content(t *testing.T, text string) registrytest.Node {
	t.Helper()
	if c.charts {
		return chart(t, text, 3<<20)
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	return registrytest.Index(image(t, runtime.GOARCH, text, 3<<20), image(t, other, text, 0))
}

// cell is one pull of what nobody has pulled before.
func (c client) cell(t *testing.T, s situation, registry string, pull puller) string {
	t.Helper()
	repo := strings.NewReplacer(" ", "-", ",", "", ".", "-", "(", "", ")", "").Replace(strings.ToLower(c.name + "/" + s.name))
	n := c.content(t, repo)
	push(t, registry, repo, "1", n)
	var g gate
	if s.kill {
		g.holdFrom = 1 << 20
	}
	source := newGate(t, registry, &g)
	origin := interpose(t, registry, pass)
	auth := "{none: true}"
	r := request{origin: origin.addr, repo: repo, ref: ":1", dir: t.TempDir()}
	if s.digest {
		r.ref = "@" + n.Desc.Digest.String()
	}
	if s.auth {
		hash, err := bcrypt.GenerateFromPassword([]byte("wonderland"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users := filepath.Join(r.dir, "users")
		write(t, users, "alice:"+string(hash)+"\n")
		auth = fmt.Sprintf("{htpasswd: %q}", users)
	}
	if s.have {
		r.user, r.password = "alice", "wonderland"
	}
	m := startMirrorWith(t, nil, auth, plain(origin.addr, source.addr, ""))
	defer m.stop(t)
	switch {
	case s.down:
		m.stop(t)
	case s.warm:
		warm(t, m.addr, repo, "1", n)
		source.close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), pullTime)
	defer cancel()
	r.mirror = m.addr
	if s.onTheWay != pass {
		between := interpose(t, m.addr, s.onTheWay)
		r.mirror = between.addr
		go func() {
			select {
			case <-between.stalled:
				defer time.AfterFunc(stallTime, cancel).Stop()
				<-ctx.Done()
			case <-ctx.Done():
			}
		}()
	}
	done := make(chan error, 1)
	go func() { done <- pull(ctx, r) }()
	if s.kill {
		select {
		case <-source.held:
		case <-ctx.Done():
			t.Errorf("%s: never in mid-pull", s.name)
		}
		m.kill()
		source.open()
	}
	err := <-done
	t.Logf("%s: %v, %d blobs from the origin", s.name, err, origin.blobs.Load())
	if asked := strings.Contains(m.stderr.String(), "status=206"); s.name == situations[0].name && asked != c.ranges {
		t.Errorf("asks for parts: %v, want %v", asked, c.ranges)
	}
	switch {
	case ctx.Err() != nil:
		return didWait
	case err != nil:
		return didFail
	case origin.blobs.Load() > 0:
		return fromOrigin
	}
	return fromMirror
}

// warm has the mirror fetch all of n.
func warm(t *testing.T, addr, repo, ref string, n registrytest.Node) {
	t.Helper()
	if _, err := get("http://" + addr + "/v2/" + repo + "/manifests/" + ref); err != nil {
		t.Fatal(err)
	}
	for _, b := range n.Blobs {
		if err := fetch(t, addr, repo, b); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range n.Children {
		warm(t, addr, repo, c.Desc.Digest.String(), c)
	}
}

// table is docs/clients.md: what came of every client in every situation.
type table struct {
	names []string
	about map[string]string
	cells map[[2]string]string // by client and situation
}

const tableHead = `# Clients

What becomes of a pull, by client and situation. The end-to-end tests run every cell against the built binary and compare it
with this page; ` + "`go test ./cmd/ecr-mirror/e2e -run TestClients -update`" + ` writes it.

- *mirror*: everything came from the mirror. *origin*: the client went on, or all the way, with the registry itself.
  *fails*: the pull failed. *waits*: it was still waiting five seconds later.
- *cold*: the mirror has nothing. *warm*: it has the image, and its source is gone. *credentials*: the mirror asks for a
  password, which the client has or not. *down*: nothing listens. *killed*: the mirror is killed in mid-layer. *cut*: the
  connection is closed in mid-layer, once. *stalled*: it sends no more.
- *origin or fails*: containerd goes on at the origin with a chunk that broke off, and fails by one that had been asked for and
  was not answered yet when the mirror was killed.
- Clients marked *direct* name the mirror in the image, so there is no other registry for them to go to.

`

func readTable(t *testing.T) *table {
	t.Helper()
	tb := &table{about: make(map[string]string), cells: make(map[[2]string]string)}
	b, err := os.ReadFile(tableFile)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(f) != len(situations)+2 || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| client") {
			continue
		}
		for i, s := range situations {
			tb.set(strings.TrimSpace(f[0]), strings.TrimSpace(f[1]), s.name, strings.TrimSpace(f[i+2]))
		}
	}
	return tb
}

func (tb *table) at(client, situation string) string { return tb.cells[[2]string{client, situation}] }

func (tb *table) set(client, about, situation, what string) {
	if _, ok := tb.about[client]; !ok {
		tb.names = append(tb.names, client)
	}
	tb.about[client], tb.cells[[2]string{client, situation}] = about, what
}

func (tb *table) String() string {
	var b strings.Builder
	b.WriteString(tableHead + "| client | version, use |")
	for _, s := range situations {
		b.WriteString(" " + s.name + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---|", len(situations)) + "\n")
	for _, c := range clients() { // in their order, not that of the run
		if _, ok := tb.about[c.name]; !ok {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s |", c.name, tb.about[c.name])
		for _, s := range situations {
			b.WriteString(" " + tb.at(c.name, s.name) + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}
