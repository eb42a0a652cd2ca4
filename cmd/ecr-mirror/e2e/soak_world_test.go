package e2e

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	upstream "github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

const (
	otherAccount = "444455556666"
	sourceRegion = "us-west-2"
)

// world is a source and destinations in other regions and another account, with mirrors: events get lost, come twice, late
// and in another order; destinations throttle; quotas are ECR's own.
type world struct {
	t       *testing.T
	emu     *ecrtest.Emulator
	source  *ecrtest.Registry
	push    *remote.Registry // the source, as docker push sees it
	mirrors []*replica
	lists   map[string]*upstream.Registry // by region

	mu     sync.Mutex // guards random
	random *rand.Rand
}

// replica is one mirror of a destination. It reaches everything through a listener of its own: so what crosses to it can be
// counted.
type replica struct {
	*mirror
	w               *world
	account, region string // of the destination
	name            string
	queue           string
	server          *httptest.Server

	mu     sync.Mutex
	reads  map[digest.Digest][]*crossing // of the source's layers
	kills  []time.Time
	refuse int // calls that ECR refused for our rate
}

// crossing is one read of a layer from the source.
type crossing struct {
	from, to time.Time // to is zero while it lasts
	bytes    int64
}

// newWorld has each of the destinations, account and region, mirrored by so many replicas.
func newWorld(t *testing.T, seed uint64, replicas int, destinations ...[2]string) *world {
	t.Helper()
	emu, err := ecrtest.New(ecrtest.Options{CrossAccount: true, Rates: ecrtest.Quotas()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = emu.Close() }) // nothing is kept
	w := &world{t: t, emu: emu, source: emu.Registry(account, sourceRegion), random: rand.New(rand.NewPCG(seed, 0)),
		lists: make(map[string]*upstream.Registry)}
	source := httptest.NewServer(emu.RegistryHandler(account, sourceRegion))
	t.Cleanup(source.Close)
	if w.push, err = remote.New(remote.Options{Registry: source.URL, Username: "AWS", Password: emu.Token(account, sourceRegion)}); err != nil {
		t.Fatal(err)
	}
	for _, to := range destinations {
		emu.Registry(to[0], to[1])
		queue := "pushes-for-" + to[1]
		emu.Subscribe(account, sourceRegion, queue)
		for i := range replicas {
			r := &replica{w: w, account: to[0], region: to[1], name: fmt.Sprintf("%s/%d", to[1], i), queue: queue, reads: make(map[digest.Digest][]*crossing)}
			r.server = httptest.NewServer(r.counted(emu.Handler()))
			t.Cleanup(r.server.Close)
			w.mirrors = append(w.mirrors, r)
		}
	}
	emu.OnEvent(w.deliveries)
	emu.Fault(w.throttle)
	return w
}

// deliveries loses 5 % of the events and repeats 10 %; all are late by up to three seconds, and so overtake each other.
func (w *world) deliveries(ev ecrtest.Event) []ecrtest.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	late := func() ecrtest.Delivery {
		return ecrtest.Delivery{Body: ev.Raw(), Delay: time.Duration(w.random.Int64N(int64(3 * time.Second)))}
	}
	switch p := w.random.Float64(); {
	case p < .05:
		return nil
	case p < .15:
		return []ecrtest.Delivery{late(), late()}
	}
	return []ecrtest.Delivery{late()}
}

const injected = "throttled on purpose"

// throttle refuses 3 % of the calls that write to a destination, half of them after they took effect.
func (w *world) throttle(c ecrtest.Call) ecrtest.Fault {
	switch c.Op {
	case "PutImage", "InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "CreateRepository":
	default:
		return ecrtest.Fault{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Region == sourceRegion || w.random.Float64() >= .03 {
		return ecrtest.Fault{}
	}
	return ecrtest.Fault{Status: http.StatusBadRequest, Code: "ThrottlingException", Message: injected, After: w.random.IntN(2) == 0}
}

// counted notes what crosses from the source, and what ECR refused for our rate.
func (r *replica) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasPrefix(req.URL.Path, "/layers/"+sourceRegion+"/") {
			c := &crossing{from: time.Now()}
			d := digest.Digest(path.Base(req.URL.Path))
			r.mu.Lock()
			r.reads[d] = append(r.reads[d], c)
			r.mu.Unlock()
			defer func() { // also when the client was killed
				r.mu.Lock()
				c.to = time.Now()
				r.mu.Unlock()
			}()
			h.ServeHTTP(&counter{w, &r.mu, c}, req)
			return
		}
		a := &answer{ResponseWriter: w}
		h.ServeHTTP(a, req)
		if bytes.Contains(a.refusal, []byte("ThrottlingException")) && !bytes.Contains(a.refusal, []byte(injected)) {
			r.mu.Lock()
			r.refuse++
			r.mu.Unlock()
		}
	})
}

// counter counts the bytes of an answer.
type counter struct {
	http.ResponseWriter
	mu *sync.Mutex
	c  *crossing
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.mu.Lock()
	c.c.bytes += int64(n)
	c.mu.Unlock()
	return n, err
}

// answer keeps the body of an answer that is an error.
type answer struct {
	http.ResponseWriter
	failed  bool
	refusal []byte
}

func (a *answer) WriteHeader(status int) {
	a.failed = status >= 400
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.failed {
		a.refusal = append(a.refusal, p...)
	}
	return a.ResponseWriter.Write(p)
}

// serve starts the mirror.
func (r *replica) serve(shared bool) {
	c := r.w.emu.Credentials(account)
	env := []string{"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true"}
	url := r.server.URL
	r.mirror = startMirror(r.w.t, env, fmt.Sprintf("- source: {registry: %s.dkr.ecr.%s.amazonaws.com, endpoint: %q}\n"+
		"  destination: {registry: %s.dkr.ecr.%s.amazonaws.com, endpoint: %q}\n  events: {sqs: %q, shared: %v}\n  replication: {sweep: 1m}\n",
		account, sourceRegion, url, r.account, r.region, url, url+"/"+account+"/"+r.queue, shared))
}

// restart is kill -9, and up again. While it was down somebody may have dialled from its port: then it starts once more.
func (r *replica) restart() {
	r.mu.Lock()
	r.kills = append(r.kills, time.Now())
	r.mu.Unlock()
	r.kill()
	for range 100 {
		r.process = start(r.w.t, r.env, binary(r.w.t), "serve", "--config", r.config)
		for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
			if status("http://"+r.mirror.admin+"/readyz") == http.StatusOK {
				return
			}
			select {
			case <-r.done:
				limit = time.Time{}
			default:
			}
		}
		if !strings.Contains(r.stderr.String(), "address already in use") {
			break
		}
	}
	r.w.t.Fatalf("%s does not start again:\n%s", r.name, r.stderr.String())
}

// catalog returns all images of a registry, as repo@digest, and all tags, as repo:tag@digest.
func (w *world) catalog(account, region string) map[string]bool {
	w.t.Helper()
	all, err := w.list(account, region)
	for range 3 {
		if err != nil { // the SDK closes a request's body when an answer comes before it was sent to its end
			all, err = w.list(account, region)
		}
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func (w *world) list(account, region string) (map[string]bool, error) {
	r := w.lists[region]
	if r == nil {
		cfg := w.emu.Config(account, region)
		var err error
		if r, err = upstream.New(w.t.Context(), upstream.Options{Host: w.emu.Registry(account, region).Host(), Endpoint: w.mirrors[0].server.URL, AWS: &cfg,
			Rates: map[string]float64{"DescribeImages": 1000, "DescribeRepositories": 1000}}); err != nil {
			return nil, err
		}
		w.lists[region] = r
	}
	all := make(map[string]bool)
	for repo, err := range r.Repositories(w.t.Context()) {
		if err != nil {
			return nil, err
		}
		for img, err := range r.Images(w.t.Context(), repo, time.Time{}) {
			if err != nil {
				return nil, err
			}
			all[repo+"@"+img.Descriptor.Digest.String()] = true
			for _, tag := range img.Tags {
				all[repo+":"+tag+"@"+img.Descriptor.Digest.String()] = true
			}
		}
	}
	return all, nil
}

// adminGet returns what the mirror's admin listener answers.
func (r *replica) adminGet(path string) string {
	r.w.t.Helper()
	res, err := http.Get("http://" + r.admin + path)
	if err != nil {
		r.w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		r.w.t.Fatalf("%s: %s %v\n%s", path, res.Status, err, b)
	}
	return string(b)
}
