package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// config is what the commands read. served: the mirror runs; else none does, and none ever did.
func (r *rig) config(served bool) *config.Config {
	cfg, err := config.Parse("test.yaml", []byte(r.yaml), os.LookupEnv)
	must(r.t, err)
	if cfg.Admin = r.app.adminAddr.String(); !served {
		cfg.Admin = "127.0.0.1:1"
		cfg.Cache.Path = filepath.Join(r.t.TempDir(), "none")
	}
	return cfg
}

func (r *rig) asker(served bool) *asker {
	a := r.askerOf(r.config(served))
	r.t.Cleanup(func() { must(r.t, a.close()) })
	return a
}

func (r *rig) askerOf(cfg *config.Config) *asker {
	return newAsker(&adminClient{addr: cfg.Admin}, cfg, r.aws)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *rig) ask(a *asker, ref string) entry {
	r.t.Helper()
	answer, err := a.ask(r.t.Context(), url.Values{"ref": {ref}})
	must(r.t, err)
	if len(answer.Images) != 1 {
		r.t.Fatalf("%s: %d destinations", ref, len(answer.Images))
	}
	return answer.Images[0]
}

// What the registries hold decides, whoever brought it there; the queue tells of jobs and receipts.
func TestStatus(t *testing.T) {
	r := newRig(t, "  replication: {rules: [{exclude: [private]}]}\n  events: {sqs: \"$queue\"}\n")
	img, elsewhere := registrytest.Index(registrytest.Image(1, 1000), registrytest.Image(2, 1000)), registrytest.Image(3, 1000)
	must(t, r.source.CreateRepository("app"))
	registrytest.Push(t, r.push, "app", "v1", img)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.seed("ours", "v1", elsewhere)
	must(t, r.destination.CreateRepository("ours"))
	registrytest.Push(t, r.arrives, "ours", "v1", elsewhere) // as ECR's own replication does
	r.seed("private", "v1", elsewhere)
	r.seed("late", "v1", elsewhere)
	for _, served := range []bool{true, false} {
		a := r.asker(served)
		for ref, state := range map[string]string{
			"app:v1": "ready", "app@" + img.Desc.Digest.String(): "ready", "ours:v1": "ready", "private:v1": "unwanted", "late:v1": "absent",
			"app:never": "gone", demoSourceHost + "/app:v1": "ready", demoDestinationHost + "/late:v1": "absent",
		} {
			e := r.ask(a, ref)
			if e.State != state || (state == "ready") != (!e.PullableAt.IsZero() && !e.PushedAt.IsZero()) {
				t.Errorf("served %v: %s: %+v, want %s", served, ref, e, state)
			}
		}
	}
	served := r.asker(true)
	r.eventually("a receipt for app:v1", func() bool {
		answer, err := served.collect(t.Context(), url.Values{"repository": {"app"}, "tag": {"v1"}, "state": {"done"}}, 10)
		return err == nil && len(answer.Images) == 1 && answer.Images[0].Digest == img.Desc.Digest && answer.Images[0].Lag > 0
	})
	var text bytes.Buffer
	answer, err := served.collect(t.Context(), url.Values{}, 1)
	must(t, err)
	must(t, writeEntries(&text, answer))
	if lines := strings.Split(text.String(), "\n"); len(lines) != 4 || !strings.HasPrefix(lines[0], "MIRROR") || lines[2] != "there is more: raise --limit" {
		t.Errorf("table:\n%s", &text)
	}
	if answer, err = served.collect(t.Context(), url.Values{}, 1000); err != nil || answer.Next != "" || len(answer.Images) < 2 {
		t.Errorf("all pages: %+v, %v", answer, err)
	}
	if _, err := r.asker(false).ask(t.Context(), url.Values{}); !errors.Is(err, errNotServing) {
		t.Errorf("no mirror and no queue: %v", err)
	}
}

// Who only looks does not keep a mirror from starting, and goes on asking when one that answered is restarted.
func TestStatusDoesNotLock(t *testing.T) {
	r := newRig(t, "")
	img := registrytest.Image(1, 1000)
	r.seed("app", "v1", img)
	cfg := r.config(false)
	if code, printed := r.sync(t.Context(), cfg, false); code != 0 {
		t.Fatalf("sync: exit code %d\n%s", code, printed)
	}
	a := r.askerOf(cfg)
	if e := r.ask(a, "app:v1"); e.State != "ready" {
		t.Errorf("%+v", e)
	}
	q, err := replicate.OpenQueue(queuePath(cfg)) // as a mirror that starts
	must(t, err)
	if e := r.ask(a, "app:v1"); e.State != "ready" {
		t.Errorf("while a mirror starts: %+v", e)
	}
	if _, _, err := copyQueue(cfg); err == nil {
		t.Error("a queue that is in use was copied")
	}
	must(t, errors.Join(q.Close(), a.close()))

	answers := 0
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if answers++; answers == 2 { // of three
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		must(t, json.NewEncoder(w).Encode(statusAnswer{Images: []entry{{State: map[bool]string{true: "pending", false: "ready"}[answers == 1]}}}))
	}))
	defer admin.Close()
	cfg.Admin = admin.Listener.Addr().String()
	a = r.askerOf(cfg)
	if answer, err := a.wait(t.Context(), "app:v1", time.Minute); err != nil || answers != 3 {
		t.Errorf("%+v, %v after %d answers", answer, err, answers)
	}
	answers = 1
	if _, err := a.wait(t.Context(), "app:v1", time.Minute); err == nil {
		t.Error("the first question failed, and ready went on")
	}
}

func TestStatusRefuses(t *testing.T) {
	r := newRig(t, "")
	for query, want := range map[string]int{
		"limit=0": 400, "limit=x": 400, "after=!": 400, "ref=app": 400, "ref=A:v1": 400, "ref=evil.example/app:v1": 400, "ref=:v1": 400,
		"limit=5": 200, "state=nonsense": 200,
	} {
		res, err := http.Get("http://" + r.app.adminAddr.String() + "/status?" + query)
		must(t, err)
		body, err := io.ReadAll(res.Body)
		must(t, errors.Join(err, res.Body.Close()))
		if res.StatusCode != want || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %s", query, res.Status, body)
		}
	}
}

// ready ends well only when the last part is there, and says why it ended otherwise.
func TestReady(t *testing.T) {
	r := newRig(t, "  tags: {ttl: 0s}\n  replication: {rules: [{exclude: [private]}]}\n")
	img := registrytest.Index(registrytest.Image(1, 1000), registrytest.Image(2, 1000))
	signature := registrytest.Referrer(img.Desc, "application/signature", []byte("ok"))
	r.seed("app", "v1", img)
	r.seed("app", "", signature)
	r.seed("private", "v1", img)
	a := r.asker(true)
	code := func(ref string) int {
		_, err := a.wait(t.Context(), ref, 0)
		if err == nil {
			return 0
		}
		return cli.CodeOf(err)
	}
	if got := code("app:v1"); got != cli.NotYet {
		t.Errorf("before it is there: exit code %d", got)
	}
	if got := code("private:v1"); got != cli.Never {
		t.Errorf("what no rule wants: exit code %d", got)
	}
	if got := code("app"); got != cli.Usage {
		t.Errorf("no reference: exit code %d", got)
	}
	must(t, r.destination.CreateRepository("app"))
	registrytest.Push(t, r.arrives, "app", "v1", img)
	if e := r.ask(a, "app:v1"); e.State != "incomplete" || len(e.Missing) != 1 || !strings.HasPrefix(e.Missing[0], "application/signature@") {
		t.Errorf("without its referrer: %+v", e)
	}
	if got := code("app:v1"); got != cli.NotYet {
		t.Errorf("without its referrer: exit code %d", got)
	}
	registrytest.Push(t, r.arrives, "app", "", signature)
	if got := code("app:v1"); got != 0 {
		t.Errorf("with all: exit code %d", got)
	}
	r.source.SetUnreachable(true)
	if got := code("app:v1"); got != cli.NotYet {
		t.Errorf("the source cannot be asked: exit code %d", got)
	}
	r.source.SetUnreachable(false)

	moved := registrytest.Image(9, 1000)
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "PutImage" && c.Region == demoDestinationRegion {
			return ecrtest.Fault{Status: 400, Code: "ImageTagAlreadyExistsException"} // as with immutable tags
		}
		return ecrtest.Fault{}
	})
	r.emu.OnEvent(func(ecrtest.Event) []ecrtest.Delivery { return nil })
	registrytest.Push(t, r.push, "app", "v1", moved)
	must(t, r.pulled("app", "v1"))
	r.eventually("the conflict", func() bool { return code("app:v1") == cli.Never })
}
