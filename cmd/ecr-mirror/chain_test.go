package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

const (
	thirdAccount, thirdRegion = "333344445555", "ap-northeast-1"
	thirdHost                 = thirdAccount + ".dkr.ecr." + thirdRegion + ".amazonaws.com"
)

// hears has the rig's webhook at /events/N hear of every push to the Nth registry, in the background, until it is called.
func (r *rig) hears(places ...string) (stop func()) {
	events := make(chan [2]string, 1000)
	done := make(chan struct{})
	for _, p := range places {
		account, region, _ := strings.Cut(p, "/")
		r.emu.Subscribe(account, region, "unread")
	}
	r.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery {
		for i, p := range places {
			if p == ev.Account+"/"+ev.Region {
				events <- [2]string{fmt.Sprintf("/events/%d", i), ev.Raw()}
			}
		}
		return nil
	})
	go func() {
		defer close(done)
		for e := range events {
			if code := r.post(e[0], webhookToken, e[1]); code != 202 {
				r.t.Errorf("answer %d", code)
			}
		}
	}()
	return func() {
		r.emu.OnEvent(nil)
		close(events)
		<-done
	}
}

// writes counts what the process itself wrote to a registry: clients push by another API.
func (r *rig) writes(account, region string) (n int) {
	for _, c := range r.emu.Calls() {
		if strings.HasPrefix(c, region+" "+account+" PutImage ") {
			n++
		}
	}
	return n
}

// A copies to B and B to A: every push arrives at the other side, and its echo ends there.
func TestMutualMirrors(t *testing.T) {
	t.Parallel()
	token := strings.TrimSuffix(strings.TrimPrefix(webhookYAML(t), "  events: {webhook: {path: /events, tokenFile: "), "}}\n")
	r := newRigOf(t, strings.ReplaceAll(`
- names: [forth.example.com]
  source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
  events: {webhook: {path: /events/0, tokenFile: $token}}
- names: [back.example.com]
  source:      {registry: $destination, endpoint: $endpoint}
  destination: {registry: $source, endpoint: $endpoint}
  events: {webhook: {path: /events/1, tokenFile: $token}}
`, "$token", token))
	stop := r.hears(demoSourceAccount+"/"+demoSourceRegion, demoDestinationAccount+"/"+demoDestinationRegion)
	for _, at := range []*ecrtest.Registry{r.source, r.destination} {
		if err := at.CreateRepository("app"); err != nil {
			t.Fatal(err)
		}
	}
	here := registrytest.Index(registrytest.Image(1, 100), registrytest.Image(2, 100))
	there := registrytest.Image(3, 100)
	registrytest.Push(t, r.push, "app", "here", here)
	registrytest.Push(t, r.arrives, "app", "there", there)
	r.eventually("here:app at the destination", func() bool { return r.replicated("app", "here", here) })
	arrived := func(n registrytest.Node) bool {
		d, err := r.push.Resolve(t.Context(), "app", "there")
		return err == nil && d.Digest == n.Desc.Digest
	}
	r.eventually("app:there at the source", func() bool { return arrived(there) })
	for i := range 5 { // fast enough for echoes to cross with the next push
		there = registrytest.Image(uint64(10+i), 100)
		registrytest.Push(t, r.arrives, "app", "there", there)
	}
	r.eventually("the last app:there at the source", func() bool { return arrived(there) })
	r.idle()
	stop()
	r.idle()
	if !arrived(there) {
		t.Error("an echo undid the last push")
	}
	if d, err := r.arrives.Resolve(t.Context(), "app", "there"); err != nil || d.Digest != there.Desc.Digest {
		t.Errorf("an echo undid the last push where it was pushed: %v, %v", d.Digest, err)
	}
	// Index and children there, at most one of each image back.
	if forth, back := r.writes(demoDestinationAccount, demoDestinationRegion), r.writes(demoSourceAccount, demoSourceRegion); forth != 3 || back < 2 || back > 6 {
		t.Errorf("%d manifests written forth, %d back", forth, back)
	}
}

// A chain closes to a ring, and prefixes grow on the way: what was pushed at its beginning comes to its end and no further.
func TestChainedMirrors(t *testing.T) {
	t.Parallel()
	token := strings.TrimSuffix(strings.TrimPrefix(webhookYAML(t), "  events: {webhook: {path: /events, tokenFile: "), "}}\n")
	mirror := func(n int, from, to, prefix string) string {
		return fmt.Sprintf(`
- names: [m%d.example.com]
  source:      {registry: %s, endpoint: $endpoint}
  destination: {registry: %s, endpoint: $endpoint}
  events: {webhook: {path: /events/%d, tokenFile: %s}}
  replication: {rules: [{repositories: ["**"], rename: {from: "", to: %s/}}]}
`, n, from, to, n, token, prefix)
	}
	r := newRigOf(t, mirror(0, "$source", "$destination", "b")+mirror(1, "$destination", thirdHost, "c")+mirror(2, thirdHost, "$source", "a"), thirdAccount+"/"+thirdRegion)
	stop := r.hears(demoSourceAccount+"/"+demoSourceRegion, demoDestinationAccount+"/"+demoDestinationRegion, thirdAccount+"/"+thirdRegion)
	if err := r.source.CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	img := registrytest.Image(1, 100)
	registrytest.Push(t, r.push, "app", "v1", img)
	r.eventually("b/app:v1 at the second", func() bool { return r.replicated("b/app", "v1", img) })
	r.eventually("one write at the third", func() bool { return r.writes(thirdAccount, thirdRegion) == 1 })
	r.idle()
	stop()
	r.idle()
	if n := r.writes(demoSourceAccount, demoSourceRegion); n != 0 {
		t.Errorf("%d manifests came back", n)
	}
}
