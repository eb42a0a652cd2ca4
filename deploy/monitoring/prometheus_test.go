package monitoring

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

const account, home, away = "111122223333", "us-west-2", "eu-central-1"

func host(region string) string { return account + ".dkr.ecr." + region + ".amazonaws.com" }

// Prometheus scrapes the built binary, answers every query of rules and dashboard, and has no alert; when the destination is
// gone, pulls go on, and the alert that says so goes from pending to firing, and ends when it is back. Times are
// seconds instead of minutes.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	programs.Need(t, "prometheus")
	emu, err := ecrtest.New(ecrtest.Options{})
	must(t, err)
	must(t, emu.Start(ecrtest.Listen{Registries: map[string]string{host(home): "", host(away): ""}}))
	t.Cleanup(func() { emu.Close() })
	const images = 200 // each is pulled once, so that each pull asks the destination
	token := emu.Token(account, home)
	push, err := remote.New(remote.Options{Registry: "http://" + emu.RegistryHost(account, home), Username: "AWS", Password: token})
	must(t, err)
	must(t, emu.Registry(account, home).CreateRepository("app"))
	for i := range images {
		registrytest.Push(t, push, "app", fmt.Sprint("v", i), registrytest.Image(uint64(i), 100))
	}
	defer push.CloseIdleConnections()
	defer http.DefaultClient.CloseIdleConnections()
	m := startMirror(t, emu)
	p := startPrometheus(t, m.admin)
	pull := puller(t, "http://"+m.listen)
	for range 5 {
		pull()
	}
	p.eventually("a scrape of a mirror that serves", func() bool { return len(p.query(`ecr_mirror_requests_total{class="ok"}`)) > 0 })
	for _, a := range p.alerts() {
		if a.State == "firing" && a.Labels["alertname"] != "EcrMirrorDiskLow" { // which is this machine's
			t.Errorf("an alert of a mirror that is well: %+v", a)
		}
	}
	emu.Registry(account, away).SetDown(true)
	states := make(map[string]bool)
	var said string
	p.eventually("EcrMirrorUpstreamDown fires", func() bool {
		pull()
		for _, a := range p.alerts() {
			if a.Labels["alertname"] == "EcrMirrorUpstreamDown" {
				states[a.State], said = true, a.Annotations["description"]
				if a.Labels["tier"] != "destination" || a.Labels["severity"] != "page" {
					t.Fatalf("%+v", a)
				}
			}
		}
		return states["firing"]
	})
	if !states["pending"] {
		t.Error("it was never pending")
	}
	if want := "The destination of " + host(home) + " does not answer " + m.admin + ". What the local disk or the source has is still pulled"; !strings.HasPrefix(said, want) {
		t.Errorf("it says %q, want %q...", said, want)
	}
	emu.Registry(account, away).SetDown(false)
	p.eventually("EcrMirrorUpstreamDown ends", func() bool {
		pull()
		for _, a := range p.alerts() {
			if a.Labels["alertname"] == "EcrMirrorUpstreamDown" {
				return false
			}
		}
		return true
	})
	replace := strings.NewReplacer("$job", ".+", "$instance", ".+", "$mirror", ".*", "$__rate_interval", "10s", "$__range", "1m")
	var empty []string
	for where, expr := range queries(t) {
		if len(p.query(replace.Replace(expr))) == 0 && !strings.HasPrefix(where, "EcrMirror") {
			empty = append(empty, where)
		}
	}
	if len(empty) > 25 { // here are no events, no deletions, no TLS and no budget
		t.Errorf("%d queries of the dashboard have no answer: %q", len(empty), empty)
	}
	for name, problem := range p.broken() {
		t.Errorf("rule %s: %s", name, problem)
	}
}

// puller returns what pulls another image each time it is called.
func puller(t *testing.T, mirror string) func() {
	r, err := remote.New(remote.Options{Registry: mirror})
	must(t, err)
	t.Cleanup(r.CloseIdleConnections)
	n := 0
	return func() {
		t.Helper()
		image := registrytest.Image(uint64(n), 100)
		n++
		c, err := r.Open(t.Context(), registry.Object{Repo: "app", Kind: registry.Manifest, Digest: image.Desc.Digest}, registry.Whole)
		must(t, err)
		_, err = io.Copy(io.Discard, c)
		must(t, err)
		must(t, c.Close())
	}
}

type mirror struct{ listen, admin string }

// startMirror builds the binary and has it serve between two regions of the emulator.
func startMirror(t *testing.T, emu *ecrtest.Emulator) mirror {
	t.Helper()
	dir, m := t.TempDir(), mirror{free(t), free(t)}
	binary := filepath.Join(dir, "ecr-mirror")
	must(t, programs.Build(binary, filepath.Join("..", ".."), "cmd/ecr-mirror"))
	side := func(region string) string {
		return fmt.Sprintf("{registry: %s, endpoint: %q}", host(region), emu.ControlURL())
	}
	write(t, filepath.Join(dir, "config.yaml"), fmt.Sprintf("listen: %s\nadmin: %s\ncache: {path: %s, size: 1GiB}\nmirrors:\n- source: %s\n  destination: %s\n  replication: {sweep: 1h}\n",
		m.listen, m.admin, filepath.Join(dir, "cache"), side(home), side(away)))
	c := emu.Credentials(account)
	begin(t, []string{"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"}, "http://"+m.admin+"/readyz", binary, "serve", "--config", filepath.Join(dir, "config.yaml"))
	return m
}

// prometheus is one that scrapes and evaluates every second.
type prometheus struct {
	t   *testing.T
	url string
}

var (
	span = regexp.MustCompile(`\[\d+[mh]\]`)
	wait = regexp.MustCompile(`(?m)^(    for: )\d+[mh]$`)
)

func startPrometheus(t *testing.T, target string) *prometheus {
	t.Helper()
	dir, at := t.TempDir(), free(t)
	rules := wait.ReplaceAllString(span.ReplaceAllString(string(read(t, "alerts.yaml")), "[5s]"), "${1}2s")
	write(t, filepath.Join(dir, "alerts.yaml"), rules)
	write(t, filepath.Join(dir, "prometheus.yaml"), fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [alerts.yaml]
scrape_configs: [{job_name: ecr-mirror, static_configs: [{targets: ["%s"]}]}]
`, target))
	p := &prometheus{t, "http://" + at}
	begin(t, nil, p.url+"/-/ready", "prometheus", "--config.file="+filepath.Join(dir, "prometheus.yaml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+at)
	return p
}

// get answers path of Prometheus' HTTP API in v.
func (p *prometheus) get(path string, v any) {
	p.t.Helper()
	res, err := http.Get(p.url + path)
	must(p.t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(p.t, err)
	answer := struct{ Data any }{v}
	if err := json.Unmarshal(b, &answer); err != nil || res.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s %s: %v", path, res.Status, b, err)
	}
}

func (p *prometheus) query(expr string) []any {
	p.t.Helper()
	var data struct{ Result []any }
	p.get("/api/v1/query?query="+url.QueryEscape(expr), &data)
	return data.Result
}

type firing struct {
	Labels, Annotations map[string]string
	State               string
}

func (p *prometheus) alerts() []firing {
	p.t.Helper()
	var data struct{ Alerts []firing }
	p.get("/api/v1/alerts", &data)
	return data.Alerts
}

// broken are the rules that could not be evaluated.
func (p *prometheus) broken() map[string]string {
	p.t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	p.get("/api/v1/rules", &data)
	bad, n := make(map[string]string), 0
	for _, g := range data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				bad[r.Name] = r.Health + " " + r.LastError
			}
		}
	}
	if n != len(alerts(p.t)) {
		bad["all"] = fmt.Sprintf("%d rules only", n)
	}
	return bad
}

func (p *prometheus) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !ok(); time.Sleep(250 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("not within 40 s: %s; alerts %+v", what, p.alerts())
		}
	}
}

// begin runs a program until the test ends, and waits until ready answers 200.
func begin(t *testing.T, env []string, ready, name string, args ...string) {
	t.Helper()
	var out strings.Builder
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = cmd.Wait()                          // by a signal
		if text := out.String(); t.Failed() {
			t.Logf("%s printed:\n%s", name, text[max(0, len(text)-8000):])
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		res, err := http.Get(ready)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not ready: %v", name, err)
		}
	}
}

// free returns a loopback address that nobody listens on, below the ports that the kernel gives to connections, one of which would
// else take it before its daemon listens.
func free(t *testing.T) string {
	t.Helper()
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 25000+rand.IntN(7000))); err == nil {
			defer l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
