package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// roleYAML is the configuration that a front and a worker share but for their caches.
func (r *rig) roleYAML(role, queue string) string {
	return fmt.Sprintf(`
role: %s
listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {path: %s, size: 1GiB}
mirrors:
- source: {registry: %s, endpoint: %q}
  destination: {registry: "http://%s", type: ecr, account: %q, region: %s, endpoint: %q}
  events: {sqs: %q, shared: true}
  replication: {rules: [{repositories: ["team/**"]}]}
`, role, r.t.TempDir(), demoSourceHost, r.emu.ControlURL(), r.emu.RegistryHost(demoDestinationAccount, demoDestinationRegion), demoDestinationAccount,
		demoDestinationRegion, r.emu.ControlURL(), r.emu.QueueURL(demoSourceAccount, demoSourceRegion, queue))
}

// inRole is the rig with a process of the role that uses creds as the mirror under test.
func (r *rig) inRole(yaml string, creds aws.Credentials) *rig {
	m := &rig{t: r.t, emu: r.emu, source: r.source, destination: r.destination, push: r.push, arrives: r.arrives, yaml: yaml, aws: &aws.Config{
		Region: demoSourceRegion, BaseEndpoint: aws.String(r.emu.ControlURL()),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })}}
	m.app = startApp(r.t, yaml, m.aws)
	if m.app.registryAddr == nil {
		return m
	}
	m.url = "http://" + m.app.registryAddr.String()
	var err error
	m.mirror, err = remote.New(remote.Options{Registry: m.url})
	must(r.t, err)
	return m
}

// printedFor are the policies for a configuration.
func printedFor(t *testing.T, yaml, queueKey string) (*config.Config, []grant) {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(yaml), os.LookupEnv)
	must(t, err)
	printed, err := policies(cfg, policyOptions{eventRule: "ecr-mirror", queueKey: queueKey})
	must(t, err)
	return cfg, printed
}

// A front with nothing but the policies of fronts, and a worker with nothing but those of workers, are together a mirror: what
// is pushed is replicated, and what is pulled and missed, too.
func TestRoles(t *testing.T) {
	t.Parallel()
	const queueKey = "arn:aws:kms:us-west-2:111122223333:key/q"
	rec := &decisions{}
	r := newRigWith(t, emulatorOptions{strict: true, decisions: rec.note}, "- source: {registry: $source, endpoint: $endpoint}\n")
	for _, account := range []string{demoSourceAccount, demoDestinationAccount} {
		_, err := awsecr.NewFromConfig(r.emu.Config(account, demoDestinationRegion)).PutAccountSetting(t.Context(),
			&awsecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")})
		must(t, err)
	}
	q := sqs.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
	_, err := q.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("pushes"), Attributes: map[string]string{"KmsMasterKeyId": queueKey}})
	must(t, err)

	// The policies of registry and queue are one document each, with the statements of both.
	frontYAML, workerYAML := r.roleYAML("front", "pushes"), r.roleYAML("worker", "pushes")
	_, ofFront := printedFor(t, frontYAML, queueKey)
	_, ofWorker := printedFor(t, workerYAML, queueKey)
	all := make(map[string]*grant)
	creds := make(map[string]aws.Credentials)
	for _, g := range append(ofFront[:len(ofFront):len(ofFront)], ofWorker...) {
		if g.Kind == "identity" {
			creds[g.AttachTo[strings.LastIndexByte(g.AttachTo, '-')+1:]] = r.attach([]grant{g})
		} else if one := all[g.where()]; one != nil {
			one.Document.Statement = append(one.Document.Statement, g.Document.Statement...)
		} else {
			all[g.where()] = &g
		}
	}
	for _, g := range all {
		r.attach([]grant{*g})
	}
	t.Cleanup(func() { rec.judge(t, append(ofFront, ofWorker...)) }) // once they have stopped
	must(t, r.emu.Rule(demoSourceAccount, demoSourceRegion, "ecr-mirror", `{"source":["aws.ecr"]}`, "arn:aws:sqs:"+demoSourceRegion+":"+demoSourceAccount+":pushes"))
	worker, front := r.inRole(workerYAML, creds["worker"]), r.inRole(frontYAML, creds["front"])

	if worker.app.registryAddr != nil || front.status("/v2/") != http.StatusOK {
		t.Error("a worker listens for clients, or a front does not")
	}
	evented, missed, byDigest := registrytest.Image(1, 1000), registrytest.Image(2, 1000), registrytest.Image(3, 1000)
	must(t, r.source.CreateRepository("team/app"))
	registrytest.Push(t, r.push, "team/app", "evented", evented)
	r.eventually("the event replicated the image", func() bool { return r.replicated("team/app", "evented", evented) })
	r.seed("team/app", "missed", missed)
	must(t, front.pulled("team/app", "missed"))
	r.eventually("the pull replicated the image", func() bool { return r.replicated("team/app", "missed", missed) })
	r.seed("team/new", "untold", byDigest)
	must(t, front.pulledManifest("team/new", byDigest.Desc))
	r.eventually("the pull by digest replicated the image", func() bool {
		_, err := r.arrives.Stat(t.Context(), registry.Object{Repo: "team/new", Kind: registry.Manifest, Digest: byDigest.Desc.Digest})
		return err == nil
	})
	for _, err := range front.mirror.Tags(t.Context(), "team/app") {
		must(t, err)
	}
	for _, err := range front.mirror.Referrers(t.Context(), "team/app", missed.Desc.Digest, "") {
		must(t, err)
	}
	theirs := registrytest.Image(4, 1000) // only the destination has it
	registrytest.Push(t, r.arrives, "team/app", "theirs", theirs)
	_, err = front.read(registry.Object{Repo: "team/app", Digest: theirs.Blobs[0].Desc.Digest}, theirs.Blobs[0].Desc.Size)
	must(t, err)
	must(t, front.pulled("team/app", "evented"))
	r.seed("other", "v1", evented)
	must(t, front.pulled("other", "v1")) // no rule wants it; its layers are local, of another repository
	r.seed("team/new", "swept", evented)
	if code, printed := worker.sync(t.Context(), worker.config(true), false); code != 0 || !r.replicated("team/new", "swept", evented) {
		t.Errorf("sync: exit code %d: %s", code, printed)
	}
	r.emu.Fault(func(c ecrtest.Call) (f ecrtest.Fault) {
		if c.Op == "POST upload" && c.Region == demoDestinationRegion { // a mount: what is in another repository is asked for at the source, and sent
			f.Status = http.StatusInternalServerError
		}
		return f
	})
	r.seed("team/third", "swept", evented)
	if code, printed := worker.sync(t.Context(), worker.config(true), false); code != 0 || !r.replicated("team/third", "swept", evented) {
		t.Errorf("sync: exit code %d: %s", code, printed)
	}
	if r.replicated("other", "v1", evented) {
		t.Error("the rules were not asked")
	}
	if m := front.metrics(); !strings.Contains(m, `result="handed_over"} 3`) {
		t.Error("a front hands over three jobs, and its metrics do not say so")
	}
	if code, printed := front.sync(t.Context(), front.config(true), false); code != 1 || !strings.Contains(printed, "a front compares and replicates nothing") {
		t.Errorf("sync of a front: exit code %d: %s", code, printed)
	}
	if code, printed := front.sync(t.Context(), front.config(false), false); code != 1 || !strings.Contains(printed, "a front compares and replicates nothing") {
		t.Errorf("sync as a front: exit code %d: %s", code, printed)
	}
	// What the worker was at when it stopped is for the others at once.
	held := make(chan struct{})
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op != "PutImage" || c.Region != demoDestinationRegion {
			return ecrtest.Fault{}
		}
		if c.Nth == 0 {
			close(held)
		}
		return ecrtest.Fault{Delay: time.Hour}
	})
	must(t, r.source.CreateRepository("team/held"))
	registrytest.Push(t, r.push, "team/held", "v1", missed)
	<-held
}

// The doctor of a role asks about what that role needs, and about no more.
func TestDoctorOfRoles(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]map[string]int{
		"front":  {"ok permission": 4 + 4, "ok layers": 2, "ok queue": 1, "ok credentials": 2, "ok clock": 2},
		"worker": {"ok permission": 5 + 12, "ok layers": 2, "ok queue": 1, "unknown queue": 1, "ok credentials": 2, "ok clock": 2, "ok quota": 1},
	} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, emulatorOptions{strict: true}, "- source: {registry: $source, endpoint: $endpoint}\n")
			_, err := sqs.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion)).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("pushes")})
			must(t, err)
			r.seed("team/app", "v1", registrytest.Image(1, 100))
			must(t, r.destination.CreateRepository("team/app"))
			registrytest.Push(t, r.arrives, "team/app", "v1", registrytest.Image(1, 100))
			cfg, printed := printedFor(t, r.roleYAML(role, "pushes"), "")
			creds := r.attach(printed)
			d := &doctor{cfg: cfg, repo: "team/app", options: policyOptions{eventRule: "ecr-mirror"}, base: &aws.Config{Region: demoSourceRegion, BaseEndpoint: aws.String(r.emu.ControlURL()),
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })}}
			d.examine(t.Context())
			n := map[string]int{}
			for _, f := range d.findings {
				n[f.Result+" "+f.Check]++
			}
			for what, times := range want {
				if n[what] != times {
					t.Errorf("%s: %d, want %d", what, n[what], times)
				}
			}
			if d.failed() != 0 || t.Failed() {
				t.Errorf("%v\n%s", n, d.results())
			}
		})
	}
}

// While the queue is down, what a front missed is on its disk, over a restart too; later it is sent. A message that arrived
// although an error came back is sent twice, and copied once.
func TestFrontOutlivesTheQueue(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]ecrtest.Fault{
		"it fails":               {Status: http.StatusServiceUnavailable},
		"it fails after it took": {Status: http.StatusServiceUnavailable, After: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, emulatorOptions{}, "- source: {registry: $source, endpoint: $endpoint}\n")
			sends := make(chan struct{}, 1000)
			r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
				if c.Op != "SendMessage" {
					return ecrtest.Fault{}
				}
				sends <- struct{}{}
				return fault
			})
			creds := r.emu.Credentials(demoSourceAccount)
			yaml := r.roleYAML("front", "misses")
			cfg, err := config.Parse("test.yaml", []byte(yaml), os.LookupEnv)
			must(t, err)
			r.emu.SendMessage(demoSourceAccount, demoSourceRegion, "misses", `{"source":"ecr-mirror","detail-type":"ECR Mirror Probe"}`) // makes the queue
			img := registrytest.Image(1, 1000)
			r.seed("team/app", "v1", img)

			base := aws.Config{Region: demoSourceRegion, BaseEndpoint: aws.String(r.emu.ControlURL()),
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })}
			a, err := newApp(t.Context(), cfg, &base, slog.New(slog.DiscardHandler))
			must(t, err)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- a.run(ctx) }()
			m := &rig{t: t}
			m.mirror, err = remote.New(remote.Options{Registry: "http://" + a.registryAddr.String()})
			must(t, err)
			must(t, m.pulled("team/app", "v1"))
			<-sends
			m.app, m.yaml, m.aws = a, yaml, &base
			if got := m.ask(m.asker(true), "team/app:v1"); got.State != "pending" && got.State != "leased" {
				t.Errorf("the front's status: %+v", got)
			}
			stop() // it goes on trying for some seconds, and gives up
			must(t, <-ended)

			r.emu.Fault(nil)
			r.inRole(yaml, creds)
			worker := r.inRole(r.roleYAML("worker", "misses"), creds)
			r.eventually("the pull replicated the image", func() bool { return r.replicated("team/app", "v1", img) })
			r.eventually("an empty queue", func() bool {
				n, _ := r.emu.QueueLen(demoSourceAccount, demoSourceRegion, "misses")
				return n == 0
			})
			if puts := r.calls("PutImage"); puts["team/app:v1"] != 1 {
				t.Errorf("put %d times", puts["team/app:v1"])
			}
			if n, err := worker.app.queue.LetterCounts(); err != nil || n.Kept != 0 {
				t.Errorf("dead letters: %+v, %v", n, err)
			}
		})
	}
}

// A worker listens where clients would for its webhook, and for that alone.
func TestWorkersWebhook(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, emulatorOptions{}, "- source: {registry: $source, endpoint: $endpoint}\n")
	token := t.TempDir() + "/token"
	must(t, os.WriteFile(token, []byte("0123456789abcdef\n"), 0o600))
	w := r.inRole(r.roleYAML("worker", "pushes")+"  blobs: proxy\n", r.emu.Credentials(demoSourceAccount))
	if w.app.registryAddr != nil {
		t.Error("it listens although it has no webhook")
	}
	yaml := strings.Replace(r.roleYAML("worker", "other"), "shared: true}", "shared: true, webhook: {path: /events, tokenFile: "+token+"}}", 1)
	w = r.inRole(yaml, r.emu.Credentials(demoSourceAccount))
	if got := w.status("/v2/"); got != http.StatusNotFound {
		t.Errorf("/v2/: %d", got)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/events", bytes.NewReader([]byte(`{"source":"ecr-mirror","detail-type":"ECR Mirror Probe"}`)))
	must(t, err)
	req.Header.Set("X-Api-Key", "0123456789abcdef")
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("/events: %s", res.Status)
	}
	// Neither listener is left behind when the other cannot be had.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	cfg, err := config.Parse("test.yaml", []byte(strings.Replace(yaml, "listen: 127.0.0.1:0", "listen: "+taken.Addr().String(), 1)), os.LookupEnv)
	must(t, err)
	cfg.Cache.Path = t.TempDir()
	if _, err := newApp(t.Context(), cfg, w.aws, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("it listens where somebody else does")
	}
}
