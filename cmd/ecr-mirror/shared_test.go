package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// replica starts another process's worth of the mirror: its own store, the queue shared.
func (r *rig) replica(client aws.HTTPClient) *app {
	r.t.Helper()
	base := r.aws.Copy()
	if client != nil {
		base.HTTPClient = client
	}
	yaml := strings.Replace(r.yaml, "cache: {path: ", "cache: {path: "+r.t.TempDir()+"/replica, size: 1GiB}\n#", 1)
	return startApp(r.t, yaml+fmt.Sprintf("  events: {sqs: %q, shared: true}\n", r.emu.QueueURL(demoSourceAccount, demoSourceRegion, demoQueue)), &base)
}

// calls counts the destination's calls of one operation, by target.
func (r *rig) calls(op string) map[string]int {
	n := make(map[string]int)
	for _, c := range r.emu.Calls() {
		if target, ok := strings.CutPrefix(c, demoDestinationRegion+" "+demoDestinationAccount+" "+op+" "); ok {
			n[target]++
		}
	}
	return n
}

func (r *rig) noMessages() bool {
	n, _ := r.emu.QueueLen(demoSourceAccount, demoSourceRegion, demoQueue)
	return n == 0
}

// Two replicas share the work of one queue: each image is copied once, by whichever got its message.
func TestReplicasShareAQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	r.replica(nil)
	r.replica(nil)
	const n = 12
	for i := range n {
		repo := fmt.Sprintf("app%d", i)
		if err := r.source.CreateRepository(repo); err != nil {
			t.Fatal(err)
		}
		registrytest.Push(t, r.push, repo, "v1", registrytest.Image(uint64(i), 1<<12))
	}
	r.eventually("an empty queue", r.noMessages)
	puts := r.calls("PutImage")
	for i := range n {
		repo := fmt.Sprintf("app%d", i)
		if !r.replicated(repo, "v1", registrytest.Image(uint64(i), 1<<12)) || puts[repo+":v1"] != 1 {
			t.Errorf("%s:v1 was put %d times", repo, puts[repo+":v1"])
		}
	}
}

// dying is the network of a process that is killed when it is about to write a tag.
type dying struct {
	next  http.RoundTripper
	alive context.Context
	kill  context.CancelFunc
}

func (d *dying) Do(req *http.Request) (*http.Response, error) {
	if strings.HasSuffix(req.Header.Get("X-Amz-Target"), ".PutImage") {
		d.kill()
	}
	if d.alive.Err() != nil {
		return nil, errors.New("killed")
	}
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(d.alive, cancel) // what is under way breaks off
	return d.next.RoundTrip(req.WithContext(ctx))
}

// clock is the emulator's.
type clock struct {
	mu   sync.Mutex
	past time.Duration
}

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return time.Now().Add(c.past) }

func (c *clock) advance(d time.Duration) { c.mu.Lock(); c.past += d; c.mu.Unlock() }

// A replica that is killed in the middle of a job leaves it to the other, which finishes it.
func TestReplicaIsKilled(t *testing.T) {
	t.Parallel()
	clk := new(clock)
	r := newRigWith(t, emulatorOptions{clock: clk.now}, `
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
`)
	alive, kill := context.WithCancel(t.Context())
	r.replica(&dying{&http.Transport{DisableKeepAlives: true}, alive, kill})
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	img := registrytest.Image(1, 1<<16)
	registrytest.Push(t, r.push, "app", "v1", img)
	<-alive.Done()
	r.replica(nil)
	if all, hidden := r.emu.QueueLen(demoSourceAccount, demoSourceRegion, demoQueue); all != 1 || hidden != 1 || r.replicated("app", "v1", img) {
		t.Fatalf("%d messages, %d hidden", all, hidden)
	}
	clk.advance(time.Minute)
	r.eventually("app:v1 at the destination", func() bool { return r.replicated("app", "v1", img) })
	r.eventually("an empty queue", r.noMessages)
	if puts := r.calls("PutImage"); puts["app:v1"] != 1 {
		t.Errorf("put %d times", puts["app:v1"])
	}
}

// An event that a shared queue cannot turn into a job is a dead letter of the replica that got it.
func TestReplicaKeepsDeadLetters(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	a := r.replica(nil)
	r.emu.OnEvent(func(ecrtest.Event) []ecrtest.Delivery { return nil })
	r.emu.SendMessage(demoSourceAccount, demoSourceRegion, demoQueue, "?")
	r.eventually("an empty queue", r.noMessages)
	c, err := a.queue.LetterCounts()
	if err != nil || c.Kept != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
