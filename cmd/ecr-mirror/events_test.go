package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

const webhookToken = "a-token-for-the-webhook"

func webhookYAML(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(webhookToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("  events: {webhook: {path: /events, tokenFile: %s}}\n", path)
}

// post sends an event as an API destination does and returns the answer's status.
func (r *rig) post(path, token, body string) int {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("X-Api-Key", token)
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// dead returns why each dead letter is one, sorted.
func (r *rig) dead() (reasons []string) {
	r.t.Helper()
	for l, err := range r.app.queue.Letters(r.t.Context()) {
		if err != nil {
			r.t.Fatal(err)
		}
		reasons = append(reasons, fmt.Sprintf("%d times: %s", l.Times, l.Reason))
	}
	slices.Sort(reasons)
	return reasons
}

// idle waits until no job is left.
func (r *rig) idle() {
	r.t.Helper()
	r.eventually("an empty queue", func() bool { return r.app.queue.Pending().Waiting() == 0 })
}

// Tags that moved A, B, A end right, whatever order their events come in and however often.
func TestWebhookReplicates(t *testing.T) {
	r := newRig(t, webhookYAML(t))
	var mu sync.Mutex
	var sent []string
	r.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, ev.Raw(), ev.SNS(), ev.CloudTrail())
		return nil
	})
	a, b := registrytest.Image(1, 1<<16), registrytest.Index(registrytest.Image(2, 1<<16), registrytest.Image(3, 1<<10))
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []registrytest.Node{a, b, a} {
		registrytest.Push(t, r.push, "app", "v1", n)
	}
	registrytest.Push(t, r.push, "app", "v2", b)
	mu.Lock()
	defer mu.Unlock()
	rand.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
	for _, body := range sent {
		if code := r.post("/events", webhookToken, body); code != http.StatusAccepted {
			t.Fatalf("%d for %s", code, body)
		}
	}
	r.idle()
	if !r.replicated("app", "v1", a) || !r.replicated("app", "v2", b) {
		t.Error("the destination does not have what the source has")
	}
	if dead := r.dead(); dead != nil || r.app.queue.Pending().Dead > 0 {
		t.Errorf("dead: %v", dead)
	}
	for path, want := range map[string]int{"/events": http.StatusUnauthorized, "/events/": http.StatusNotFound, "/v2/": http.StatusMethodNotAllowed} {
		if code := r.post(path, "not the token", sent[0]); code != want {
			t.Errorf("%s without the token: %d, want %d", path, code, want)
		}
	}
}

// A referrer that is pushed later comes by its own event, ECR Referrer Action, the only one there is of it.
func TestReferrerEventReplicates(t *testing.T) {
	t.Parallel()
	r := newRig(t, "  events: {sqs: \"$queue\"}\n")
	img := registrytest.Image(1, 1<<10)
	r.seed("app", "v1", img)
	if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 || !r.replicated("app", "v1", img) {
		t.Fatalf("sync: exit code %d\n%s", code, printed)
	}
	var kinds []string // the emulator calls the hook while it is pushed to
	r.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery {
		if ev.Account+"/"+ev.Region != demoSourceAccount+"/"+demoSourceRegion {
			return nil
		}
		kinds = append(kinds, ev.DetailType)
		return []ecrtest.Delivery{{Body: ev.Raw()}}
	})
	signature := registrytest.Referrer(img.Desc, "application/signature", []byte("signed later"))
	registrytest.Push(t, r.push, "app", "", signature)
	r.emu.OnEvent(nil)
	if !slices.Equal(kinds, []string{"ECR Referrer Action"}) {
		t.Fatalf("events %q", kinds)
	}
	r.eventually("the signature at the destination", func() bool {
		for d, err := range r.arrives.Referrers(t.Context(), "app", img.Desc.Digest, "") {
			if err == nil && d.Digest == signature.Desc.Digest {
				return true
			}
		}
		return false
	})
	r.idle()
	if dead := r.dead(); dead != nil {
		t.Errorf("dead: %v", dead)
	}
}

// An event is acknowledged when its job is on disk, not when it is done.
func TestWebhookPromises(t *testing.T) {
	r := newRig(t, webhookYAML(t))
	r.destination.SetDown(true)
	img := registrytest.Image(1, 1<<10)
	var push string
	r.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery { push = ev.Raw(); return nil })
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, r.push, "app", "v1", img)
	if code := r.post("/events", webhookToken, push); code != http.StatusAccepted {
		t.Fatalf("answer %d", code)
	}
	if n := r.app.queue.Pending().Waiting(); n != 1 {
		t.Fatalf("%d jobs on disk", n)
	}
	r.destination.SetDown(false)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
}

// What is no push at this source hurts nobody and is not lost, from the queue as from the webhook.
func TestDeadLetters(t *testing.T) {
	r := newRig(t, strings.Replace(webhookYAML(t), "{webhook", `{sqs: "$queue", webhook`, 1))
	event := func(account, repo string) string {
		return fmt.Sprintf(`{"source": "aws.ecr", "detail-type": "ECR Image Action", "account": %q, "region": %q, "time": "2026-11-21T15:00:00Z", "detail":
			{"result": "SUCCESS", "action-type": "PUSH", "repository-name": %q, "image-tag": "v1", "image-digest": %q}}`,
			account, demoSourceRegion, repo, registrytest.Image(7, 1).Desc.Digest)
	}
	bodies := []string{
		event("999999999999", "app"), // another registry
		event(demoSourceAccount, "never/seen"),
		event(demoSourceAccount, "Not/A/Name"),
		`{"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification"}`,
		"not JSON",
	}
	var once sync.Once
	r.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery {
		all := []ecrtest.Delivery{{Body: ev.Raw()}}
		once.Do(func() {
			for _, b := range bodies {
				all = append(all, ecrtest.Delivery{Body: b})
			}
		})
		return all
	})
	img := registrytest.Image(1, 1<<10)
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, r.push, "app", "v1", img)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.eventually("an empty event queue", func() bool {
		n, _ := r.emu.QueueLen(demoSourceAccount, demoSourceRegion, demoQueue)
		return n == 0
	})
	for _, b := range bodies {
		if code := r.post("/events", webhookToken, b); code != http.StatusAccepted {
			t.Errorf("%d for %s", code, b)
		}
	}
	r.idle()
	want := []string{
		`2 times: malformed event: invalid character 'o' in literal null (expecting 'u')`,
		`2 times: registry 999999999999.dkr.ecr.` + demoSourceRegion + `.amazonaws.com, repository app: foreign event`,
		`2 times: repository "Not/A/Name": malformed event`,
		`2 times: source "aws.ec2", detail-type "EC2 Instance State-change Notification": unknown event`,
	}
	if d := cmp.Diff(want, r.dead()); d != "" {
		t.Errorf("dead letters (-want +got):\n%s", d)
	}
	if c := r.app.queue.Pending(); c.Dead != 0 {
		t.Errorf("%d dead jobs: the repository that nobody has seen is gone, not broken", c.Dead)
	}
}

// A docker-registry's notification replicates to ECR.
func TestNotificationReplicates(t *testing.T) {
	m := mem.New()
	front := httptest.NewServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: m, Lister: m}}}))
	defer front.Close()
	host := strings.TrimPrefix(front.URL, "http://")
	r := newRig(t, fmt.Sprintf("- names: [other.example.com]\n  source: {registry: %q}\n  destination: {registry: %s, endpoint: \"$endpoint\"}\n",
		front.URL, demoDestinationHost)+webhookYAML(t))
	img := registrytest.Image(1, 1<<16)
	registrytest.Push(t, m, "team/app", "v1", img)
	notify := func(host string) string {
		return fmt.Sprintf(`{"events": [
			{"id": "1", "timestamp": %[1]q, "action": "push", "request": {"host": %[2]q}, "target": {"mediaType": "application/octet-stream", "digest": %[3]q, "repository": "team/app"}},
			{"id": "2", "timestamp": %[1]q, "action": "push", "request": {"host": %[2]q}, "target": {"mediaType": %[4]q, "digest": %[5]q, "repository": "team/app", "tag": "v1"}}]}`,
			time.Now().UTC().Format(time.RFC3339Nano), host, img.Blobs[0].Desc.Digest, img.Desc.MediaType, img.Desc.Digest)
	}
	for _, h := range []string{"elsewhere.example.com", host} {
		if code := r.post("/events", webhookToken, notify(h)); code != http.StatusAccepted {
			t.Fatalf("answer %d", code)
		}
	}
	r.eventually("team/app:v1 at the destination", func() bool { return r.replicated("team/app", "v1", img) })
	if dead := r.dead(); len(dead) != 1 || !strings.Contains(dead[0], "elsewhere.example.com") {
		t.Errorf("dead letters: %v", dead)
	}
}
