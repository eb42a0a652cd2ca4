package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// run runs a command line against the rig's admin port.
func (r *rig) run(args ...string) (string, error) {
	r.t.Helper()
	var out bytes.Buffer
	cmd := command()
	cmd.SetArgs(append(args, "--admin", r.app.adminAddr.String()))
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	err := cmd.ExecuteContext(r.t.Context())
	return out.String(), err
}

// listed returns the dead letters as the command lists them.
func (r *rig) listed() (all []admin.DeadLetter) {
	r.t.Helper()
	out, err := r.run("dead-letters", "list", "--output", "json")
	if err == nil {
		err = letters(strings.NewReader(out), func(l admin.DeadLetter, _ []byte) error { all = append(all, l); return nil })
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestDeadLettersCommand(t *testing.T) {
	r := newRig(t, webhookYAML(t))
	if out, err := r.run("dead-letters", "list"); err != nil || out != "no dead letters\n" {
		t.Fatalf("none: %q, %v", out, err)
	}
	img := registrytest.Image(1, 1<<10)
	r.seed("app", "v1", img)
	r.kill("app", "v1")
	for _, body := range []string{"not \x1b[31mJSON", "\xff\xfe"} {
		if code := r.post("/events", webhookToken, body); code != http.StatusAccepted {
			t.Fatal(code)
		}
	}
	all := r.listed()
	if len(all) != 3 || all[0].Kind != "job" || all[0].Tag != "v1" || all[1].Kind != "event" || all[1].Body != "" {
		t.Fatalf("listed: %+v", all)
	}
	out, err := r.run("dead-letters", "list")
	if err != nil || strings.Count(out, "\n") != 4 || !strings.Contains(out, "app:v1 (dead)") || strings.Contains(out, "\x1b") {
		t.Errorf("table: %s%v", out, err)
	}
	if out, err := r.run("dead-letters", "show", all[1].ID); err != nil || !strings.Contains(out, "not \uFFFD[31mJSON\n") {
		t.Errorf("show: %q, %v", out, err)
	}
	if out, err := r.run("dead-letters", "show", "-o", "json", all[2].ID); err != nil || !strings.Contains(out, `"raw":"//4="`) {
		t.Errorf("show bytes: %q, %v", out, err)
	}
	if out, err := r.run("dead-letters", "show", all[0].ID); err != nil || !strings.Contains(out, "app:v1 (dead)") {
		t.Errorf("show job: %q, %v", out, err)
	}
	// The job can be done now; the message is as malformed as before and stays.
	out, err = r.run("dead-letters", "retry", "--all")
	if err == nil || !strings.Contains(err.Error(), "malformed event") || out != "retry "+all[0].ID+" app:v1 (dead)\n" {
		t.Errorf("retry: %q, %v", out, err)
	}
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.idle()
	if left := r.listed(); len(left) != 2 {
		t.Errorf("left: %+v", left)
	}
	if _, err := r.run("dead-letters", "drop", all[1].ID, "0123", all[2].ID); err == nil || !strings.Contains(err.Error(), `drop 0123: dead letter "0123": not found`) {
		t.Errorf("drop: %v", err)
	}
	if left := r.listed(); left != nil {
		t.Errorf("left after drop: %+v", left)
	}
	for _, args := range [][]string{{"retry"}, {"drop", "--all", "x"}, {"list", "-o", "xml"}, {"show"}} {
		if _, err := r.run(append([]string{"dead-letters"}, args...)...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// kill gives up a tag's job.
func (r *rig) kill(repo, tag string) {
	r.t.Helper()
	q := r.app.queue
	r.destination.SetDown(true)
	defer r.destination.SetDown(false)
	key := replicate.Key{Mirror: demoSourceHost, Destination: ownName, Repo: repo, Tag: tag}
	q.MaxAttempts, q.Patience = 1, 1
	if err := q.Put(r.t.Context(), replicate.Job{Key: key, Lane: registry.LaneEvent}); err != nil {
		r.t.Fatal(err)
	}
	r.eventually("a dead job", func() bool { return q.Pending().Dead == 1 })
}

// A message of a registry that the configuration has learnt of is retried with success, and one that was cut is not.
func TestDeadLettersRetryEvent(t *testing.T) {
	r := newRig(t, webhookYAML(t))
	img := registrytest.Image(1, 1<<10)
	r.seed("app", "v1", img)
	event := `{"source": "aws.ecr", "detail-type": "ECR Image Action", "account": "` + demoSourceAccount + `", "region": "` + demoSourceRegion + `",
		"time": "2026-11-21T15:00:00Z", "detail": {"result": "SUCCESS", "action-type": "PUSH", "repository-name": "app", "image-tag": "v1",
		"image-digest": "` + img.Desc.Digest.String() + `"}}`
	event += strings.Repeat(" ", events.MaxSize-len(event)) // none that could be taken is cut
	for mirror, body := range map[string]string{demoSourceHost: event, "gone.example.com": event, demoSourceHost + "x": "?"} {
		if err := r.app.queue.PutLetter(t.Context(), mirror, []byte(body), errors.New("of another time")); err != nil {
			t.Fatal(err)
		}
	}
	large := bytes.Repeat([]byte(" "), replicate.MaxLetterBody+1)
	if err := r.app.queue.PutLetter(t.Context(), demoSourceHost, large, errors.New("large")); err != nil {
		t.Fatal(err)
	}
	_, err := r.run("dead-letters", "retry", "--all")
	if err == nil || strings.Count(err.Error(), "\n") != 2 || !strings.Contains(err.Error(), "has no events") || !strings.Contains(err.Error(), fmt.Sprintf("only %d of its %d bytes", len(large)-1, len(large))) {
		t.Errorf("retry: %v", err)
	}
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	if left := r.listed(); len(left) != 3 {
		t.Errorf("left: %+v", left)
	}
}

// An answer that ends early is no list.
func TestLettersAreWhole(t *testing.T) {
	b, err := json.Marshal(admin.DeadLetter{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = letters(strings.NewReader(string(b)+"\n"+string(b[:len(b)-1])), func(admin.DeadLetter, []byte) error { n++; return nil })
	if err == nil || n != 1 {
		t.Errorf("%d letters, error %v", n, err)
	}
}
