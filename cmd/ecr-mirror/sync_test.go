package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// planned returns a plan's differences, and its last line.
func (r *rig) planned(cfg *config.Config, force bool) (found []string, end planEnd) {
	r.t.Helper()
	var out bytes.Buffer
	_, err := plan(r.t.Context(), &adminClient{addr: cfg.Admin}, cfg, r.aws, force, newPlanWriter(&out, io.Discard, true))
	must(r.t, err)
	for in := json.NewDecoder(&out); in.More(); {
		var l planLine
		must(r.t, in.Decode(&l))
		if d := l.Difference; d != nil {
			found = append(found, d.Action+" "+d.Repository+":"+d.Tag)
		}
		if l.End != nil {
			end = *l.End
		}
	}
	slices.Sort(found) // all were pushed within a second
	return found, end
}

// sync runs the command and returns its exit code and what it printed.
func (r *rig) sync(ctx context.Context, cfg *config.Config, force bool) (code int, printed string) {
	var out, progress bytes.Buffer
	s := &syncer{admin: &adminClient{addr: cfg.Admin}, cfg: cfg, base: r.aws, force: force, plan: newPlanWriter(&out, &progress, false), errs: io.Discard}
	if err := s.run(ctx); err != nil {
		fmt.Fprintln(&progress, err)
		code = cli.CodeOf(err)
	}
	return code, out.String() + progress.String()
}

func TestPlanAndSync(t *testing.T) {
	for name, served := range map[string]bool{"by the mirror that runs": true, "alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, "  replication: {rules: [{exclude: [private]}]}\n")
			cfg := r.config(served)
			first, second, third := registrytest.Image(1, 1000), registrytest.Image(2, 2000), registrytest.Image(3, 3000)
			r.seed("app", "v1", first)
			r.seed("app", "v2", second)
			r.seed("other", "v1", third)
			r.seed("private", "v1", third)
			must(t, r.destination.CreateRepository("app"))
			registrytest.Push(t, r.arrives, "app", "v2", third)

			want := []string{"add tag app:v1", "add tag other:v1", "move tag app:v2"}
			if got, end := r.planned(cfg, false); cmp.Diff(want, got) != "" || end.Jobs != 3 || end.Error != "" {
				t.Errorf("plan %v, %+v", got, end)
			}
			if r.replicated("app", "v1", first) {
				t.Fatal("plan did something")
			}
			code, printed := r.sync(t.Context(), cfg, false)
			if code != 0 || !strings.Contains(printed, "add tag 2, move tag 1; 3 jobs") || !strings.Contains(printed, "3 of 3 jobs") {
				t.Errorf("exit code %d, printed:\n%s", code, printed)
			}
			if !r.replicated("app", "v1", first) || !r.replicated("app", "v2", second) || !r.replicated("other", "v1", third) {
				t.Error("sync ended before all was there")
			}
			if code, printed := r.sync(t.Context(), cfg, false); code != 0 || !strings.Contains(printed, "nothing to do; 0 jobs") {
				t.Errorf("again: exit code %d, printed:\n%s", code, printed)
			}

			dst := r.deleter()
			must(t, dst.DeleteManifest(t.Context(), "app", first.Desc.Digest)) // as its lifecycle policy does
			if got, _ := r.planned(cfg, false); cmp.Diff([]string{"expired app:v1"}, got) != "" {
				t.Errorf("after the destination's lifecycle: %v", got)
			}
			a := r.askerOf(cfg)
			if e := r.ask(a, "app:v1"); e.State != stateExpired {
				t.Errorf("status: %+v", e)
			}
			must(t, a.close())
			if code, _ := r.sync(t.Context(), cfg, false); code != 0 || r.replicated("app", "v1", first) {
				t.Errorf("what has expired was brought back, or exit code %d", code)
			}
			if code, printed := r.sync(t.Context(), cfg, true); code != 0 || !r.replicated("app", "v1", first) {
				t.Errorf("forced: exit code %d, printed:\n%s", code, printed)
			}
		})
	}
}

// Two at a time, as CronJobs that overlap, bring about what one does. On one directory the second says that it is in use.
func TestSyncsOverlap(t *testing.T) {
	t.Parallel()
	r := newRig(t, "")
	images := make([]registrytest.Node, 6)
	for i := range images {
		images[i] = registrytest.Image(uint64(i), 2000)
		r.seed("app", fmt.Sprint("v", i), images[i])
	}
	var wg sync.WaitGroup
	for range 2 {
		cfg := r.config(false)
		wg.Go(func() {
			if code, printed := r.sync(t.Context(), cfg, false); code != 0 {
				t.Errorf("exit code %d, printed:\n%s", code, printed)
			}
		})
	}
	wg.Wait()
	for i, img := range images {
		if !r.replicated("app", fmt.Sprint("v", i), img) {
			t.Errorf("v%d is not there", i)
		}
	}
	cfg := r.config(true) // its directory is the mirror's
	cfg.Admin = "127.0.0.1:1"
	if code, printed := r.sync(t.Context(), cfg, false); code != 1 || !strings.Contains(printed, cfg.Cache.Path) {
		t.Errorf("exit code %d, printed:\n%s", code, printed)
	}
}

// deleter is the destination as its owner sees it.
func (r *rig) deleter() registry.Deleter {
	r.t.Helper()
	all, err := places(r.t.Context(), r.config(true), upstreams{aws: r.aws})
	must(r.t, err)
	return all[0].destination.(registry.Deleter)
}

// A sync that was interrupted in the middle goes on where it was: no layer that arrived crosses again.
func TestSyncGoesOn(t *testing.T) {
	r := newRig(t, "")
	cfg := r.config(false)
	var images []registrytest.Node
	for i := range 12 {
		n := registrytest.Image(uint64(i+1), 50_000)
		images = append(images, n)
		r.seed("app", fmt.Sprint("v", i), n)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	var once sync.Once
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "PutImage" && c.Region == demoDestinationRegion && c.Target == "app:v5" {
			once.Do(interrupt)
			return ecrtest.Fault{Delay: time.Minute}
		}
		return ecrtest.Fault{}
	})
	code, printed := r.sync(ctx, cfg, false)
	if code != cli.Interrupted || !strings.Contains(printed, "run sync again to go on") {
		t.Errorf("interrupted: exit code %d, printed:\n%s", code, printed)
	}
	r.emu.Fault(nil)
	arrived := map[int]bool{5: true} // all but its tag
	for i, n := range images {
		arrived[i] = arrived[i] || r.replicated("app", fmt.Sprint("v", i), n)
	}
	if code, printed := r.sync(t.Context(), cfg, false); code != 0 {
		t.Errorf("exit code %d, printed:\n%s", code, printed)
	}
	for i, n := range images {
		if !r.replicated("app", fmt.Sprint("v", i), n) {
			t.Errorf("app:v%d is not there", i)
		}
		for _, b := range n.Blobs {
			if reads := r.source.LayerReads(b.Desc.Digest); arrived[i] && len(reads) != 1 {
				t.Errorf("%s crossed %d times", b.Desc.Digest, len(reads))
			}
		}
	}
}

// What needs an operator is no success.
func TestSyncSaysWhatIsLeft(t *testing.T) {
	r := newRig(t, "")
	r.seed("app", "v1", registrytest.Image(1, 1000))
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "PutImage" && c.Region == demoDestinationRegion {
			return ecrtest.Fault{Status: 400, Code: "ImageTagAlreadyExistsException"}
		}
		return ecrtest.Fault{}
	})
	if code, printed := r.sync(t.Context(), r.config(false), false); code != cli.Found || !strings.Contains(printed, "of 1 jobs 1 need an operator") {
		t.Errorf("exit code %d, printed:\n%s", code, printed)
	}
}

// The byte budget stops a sync, is remembered by the next process, and does not keep a pull from its image.
func TestSyncKeepsToTheBudget(t *testing.T) {
	r := newRig(t, "  replication: {bytesPerDay: 100KiB}\n")
	cfg := r.config(false)
	for i := range 12 {
		r.seed("app", fmt.Sprint("v", i), registrytest.Image(uint64(i+1), 50_000))
	}
	for range 2 {
		if code, printed := r.sync(t.Context(), cfg, false); code != cli.Found || !strings.Contains(printed, "wait for tomorrow's byte budget") {
			t.Errorf("exit code %d, printed:\n%s", code, printed)
		}
		if n := r.source.LayerBytes(); n > 9*51_000 { // what four workers were at when it was spent
			t.Errorf("%d bytes crossed", n)
		}
	}
	for _, tag := range []string{"v8", "v9", "v10", "v11"} { // more than a day's budget
		must(t, r.pulled("app", tag))
	}
}

// Interrupted before there is a plan, sync says so in its exit code, and leaves nothing to do.
func TestSyncInterruptedEarly(t *testing.T) {
	r := newRig(t, "")
	r.seed("app", "v1", registrytest.Image(1, 1000))
	ctx, interrupt := context.WithCancel(t.Context())
	r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "DescribeImages" {
			interrupt()
			return ecrtest.Fault{Delay: time.Minute}
		}
		return ecrtest.Fault{}
	})
	if code, printed := r.sync(ctx, r.config(false), false); code != cli.Interrupted || !strings.Contains(printed, "interrupted while comparing") {
		t.Errorf("exit code %d, printed:\n%s", code, printed)
	}
}
