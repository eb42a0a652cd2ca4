package replicate_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
)

// running is Workers at work over places.
type running struct {
	places
	q    *replicate.Queue
	w    *replicate.Workers
	log  *bytes.Buffer
	stop func() error // ends Run and returns its error
}

// run starts workers; it is called in a synctest bubble.
func run(t *testing.T, edit func(*replicate.Options)) *running {
	r := &running{places: newPlaces(), q: newQueue(t), log: new(bytes.Buffer)}
	o := replicate.Options{Queue: r.q, Concurrency: 2, Logger: slog.New(slog.NewTextHandler(r.log, nil)),
		Mirrors: map[string]replicate.Mirror{"m": {Source: r.from, Tags: r.from,
			Destinations: map[string]replicate.Destination{"d": {Writer: r.to, Reader: r.to}}}}}
	if edit != nil {
		edit(&o)
	}
	r.w = replicate.NewWorkers(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	stopped := false
	r.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	go func() { done <- r.w.Run(ctx) }()
	t.Cleanup(func() { must(t, r.stop()) })
	return r
}

// settle waits until no job waits, or limit has passed.
func (r *running) settle(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if r.q.Pending().Waiting() == 0 {
			return
		}
	}
}

func (r *running) given(t *testing.T) []string {
	t.Helper()
	var out []string
	for j, err := range r.q.Dead(t.Context()) {
		must(t, err)
		out = append(out, j.State.String()+" "+j.Err)
	}
	return out
}

func TestWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		image, other := registrytest.Image(1, 100), registrytest.Index(registrytest.Image(2, 100), registrytest.Image(3, 100))
		registrytest.Push(t, r.src, "app", "v1", image)
		registrytest.Push(t, r.src, "app", "", other)
		r.to.Before = func(c registrytest.Call) error {
			if c.Op == "put-blob" {
				time.Sleep(time.Second)
			}
			return nil
		}
		seen := time.Now().Add(-10 * time.Second)
		push := registry.Change{Repo: "app", Tag: "v1", Digest: image.Desc.Digest, At: seen}
		j, _ := replicate.FromChange("m", "d", push)
		push.Tag, push.Digest = "", other.Desc.Digest
		j2, _ := replicate.FromChange("m", "d", push)
		put(t, r.q, j, j2)
		r.settle(time.Minute)
		names(t, r.dst, "app", "v1", image)
		has(t, r.dst, "app", other)

		rec, ok, err := r.q.Receipt(contentJob("app", image.Desc.Digest).Key)
		if must(t, err); !ok || rec.Found || rec.Bytes == 0 || !rec.SeenAt.Equal(seen) || rec.PullableAt.Sub(seen) != 11*time.Second {
			t.Errorf("receipt %+v", rec)
		}
		put(t, r.q, j) // once more: found, and nothing is added to the lag
		r.settle(time.Minute)
		late := j
		late.Hint, late.SeenAt = d1, time.Now() // an event for an image that the tag does not name any more
		put(t, r.q, late)
		r.settle(time.Minute)
		gone := tagJob("app", "never", d1, seen)
		put(t, r.q, gone, contentJob("app", d2))
		r.settle(time.Minute)

		got := gather(t, r.w)
		lag := "ecr_mirror_replication_lag_seconds destination=d mirror=m "
		if got[lag+"sum"] < 22 || got[lag+"sum"] > 24 {
			t.Errorf("sum of lags: %v", got[lag+"sum"])
		}
		for name, want := range map[string]float64{
			lag + "count": 2,
			"ecr_mirror_job_results_total destination=d mirror=m result=done":       2,
			"ecr_mirror_job_results_total destination=d mirror=m result=found":      1,
			"ecr_mirror_job_results_total destination=d mirror=m result=gone":       2,
			"ecr_mirror_job_results_total destination=d mirror=m result=superseded": 1,
			"ecr_mirror_queue_given_up_jobs state=dead":                             0,
			"ecr_mirror_replicated_bytes_total destination=d mirror=m":              float64(rec.Bytes + bytesOf(other)),
		} {
			if v, ok := got[name]; !ok || v != want {
				t.Errorf("%s is %v, want %v", name, v, want)
			}
		}
		must(t, r.stop())
		if got := strings.Count(r.log.String(), "msg=replicate"); got != 6 {
			t.Errorf("%d lines in the log, want one per attempt:\n%s", got, r.log)
		}
	})
}

func TestWorkersQueueMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		w := replicate.NewWorkers(replicate.Options{Queue: q})
		j := tagJob("app", "v1", "", time.Time{})
		put(t, q, j)
		time.Sleep(90 * time.Second)
		j.Lane, j.Tag = registry.LaneBackfill, "v2"
		put(t, q, j)
		must(t, q.PutLetter(t.Context(), "m", []byte("?"), registry.Invalid))
		want := map[string]float64{
			"ecr_mirror_dead_letters": 1, "ecr_mirror_dead_letters_dropped_total": 0, "ecr_mirror_queue_bytes": 0,
			"ecr_mirror_queue_given_up_jobs state=conflict": 0, "ecr_mirror_queue_given_up_jobs state=dead": 0,
			"ecr_mirror_queue_jobs lane=backfill": 1, "ecr_mirror_queue_oldest_seconds lane=backfill": 0,
			"ecr_mirror_queue_jobs lane=client": 0, "ecr_mirror_queue_oldest_seconds lane=client": 0,
			"ecr_mirror_queue_jobs lane=event": 1, "ecr_mirror_queue_oldest_seconds lane=event": 90,
			"ecr_mirror_queue_jobs lane=sweep": 0, "ecr_mirror_queue_oldest_seconds lane=sweep": 0,
		}
		if diff := cmp.Diff(want, gather(t, w)); diff != "" {
			t.Errorf("metrics (-want +got):\n%s", diff)
		}
	})
}

// gather returns the workers' metrics by name and labels.
func gather(t *testing.T, w *replicate.Workers) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.Collectors()...)
	families, err := reg.Gather()
	must(t, err)
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				out[name+" count"], out[name+" sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
				continue
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

// bytesOf is what n's blobs weigh.
func bytesOf(n registrytest.Node) (sum int64) {
	for _, b := range n.Blobs {
		sum += b.Desc.Size
	}
	for _, c := range n.Children {
		sum += bytesOf(c)
	}
	return sum
}

func TestWorkersGiveUp(t *testing.T) {
	image := registrytest.Image(1, 10)
	layer := image.Blobs[1].Desc.Digest
	for _, c := range []struct {
		name    string
		job     replicate.Job
		arrange func(*running)
		want    string
		puts    int // attempts that reached the tag
	}{
		{"unknown mirror", replicate.Job{Key: replicate.Key{Mirror: "old", Destination: "d", Repo: "app", Tag: "v1"}}, nil,
			`dead mirror "old" is not in the configuration`, 0},
		{"unknown destination", replicate.Job{Key: replicate.Key{Mirror: "m", Destination: "old", Repo: "app", Tag: "v1"}}, nil,
			`dead mirror "m" has no destination "old" in the configuration`, 0},
		{"immutable tag", tagJob("app", "v1", "", time.Time{}), func(r *running) {
			r.to.Before = registrytest.FailNth("put-manifest", 0, registry.Errorf(registry.Conflict, "tag v1 is immutable"))
		}, "conflict destination: tag v1 is immutable", 1},
		{"source blob is missing", contentJob("app", image.Desc.Digest), func(r *running) {
			r.from.Before = func(c registrytest.Call) error {
				if c.Op == "open" && c.Object.Digest == layer {
					return registry.Unknown(c.Object)
				}
				return nil
			}
		}, "dead source: blob app@" + layer.String() + ": not found", 0},
		{"destination refuses the manifest", tagJob("app", "v1", "", time.Time{}), func(r *running) {
			r.to.Before = registrytest.FailNth("put-manifest", 0, registry.Errorf(registry.Invalid, "Invalid JSON syntax"))
		}, "dead destination: Invalid JSON syntax", 1},
		{"destination loses a blob", tagJob("app", "v1", "", time.Time{}), func(r *running) { // may pass: it is tried again
			e := registry.Errorf(registry.Invalid, "layers do not exist")
			e.Code = "MANIFEST_BLOB_UNKNOWN"
			r.to.Before = registrytest.FailNth("put-manifest", 0, e)
		}, "dead destination: layers do not exist", 10},
		{"denied", tagJob("app", "v1", "", time.Time{}), func(r *running) {
			r.to.Before = registrytest.FailNth("put-manifest", 0, registry.Errorf(registry.Denied, "no"))
		}, "dead destination: no", 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := run(t, nil)
				registrytest.Push(t, r.src, "app", "v1", image)
				if c.arrange != nil {
					c.arrange(r)
				}
				put(t, r.q, c.job)
				r.settle(4 * time.Hour)
				if diff := cmp.Diff([]string{c.want}, r.given(t)); diff != "" {
					t.Errorf("given up (-want +got):\n%s", diff)
				}
				if n := r.to.Count("put-manifest"); n != c.puts {
					t.Errorf("%d attempts to write the tag, want %d", n, c.puts)
				}
			})
		})
	}
}

func TestWorkersLane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan registry.Lane, 1)
		r := run(t, func(o *replicate.Options) {
			m := o.Mirrors["m"]
			m.Tags = laneReader{m.Tags, asked}
			o.Mirrors["m"] = m
		})
		j := tagJob("app", "v1", "", time.Time{})
		j.Lane = registry.LaneSweep
		put(t, r.q, j)
		if l := <-asked; l != registry.LaneSweep {
			t.Errorf("the source was asked in lane %v", l)
		}
	})
}

type laneReader struct {
	registry.Reader
	asked chan registry.Lane
}

func (r laneReader) Resolve(ctx context.Context, _, _ string) (registry.Descriptor, error) {
	r.asked <- registry.LaneOf(ctx)
	return registry.Descriptor{}, registry.Errorf(registry.NotFound, "no such tag")
}

func TestWorkersClosedQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(t)
		done := make(chan error)
		go func() { done <- replicate.NewWorkers(replicate.Options{Queue: q}).Run(t.Context()) }()
		synctest.Wait()
		must(t, q.Close())
		if err := <-done; err == nil {
			t.Error("run over a closed queue returned nil")
		}
	})
}

// A job outlives the rules that wanted it: what they do not want any more, or have no name for, is not copied.
func TestRulesHaveChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, func(o *replicate.Options) {
			d := o.Mirrors["m"].Destinations["d"]
			d.Wants = func(repo, tag string) bool { return repo == "app" && tag != "v1" }
			d.Repo = func(repo string) string { return map[string]string{"app": "app"}[repo] }
			o.Mirrors["m"].Destinations["d"] = d
		})
		n := registrytest.Image(1, 100)
		var jobs []replicate.Job
		for _, name := range [][2]string{{"app", "v1"}, {"app", "v2"}, {"secret", "v2"}} {
			registrytest.Push(t, r.src, name[0], name[1], n)
			jobs = append(jobs, tagJob(name[0], name[1], n.Desc.Digest, time.Now()))
		}
		put(t, r.q, jobs...)
		r.settle(time.Minute)
		names(t, r.dst, "app", "v2", n)
		if _, err := r.dst.Resolve(t.Context(), "app", "v1"); registry.ClassOf(err) != registry.NotFound {
			t.Errorf("v1: %v", err)
		}
		if c := r.q.Pending(); c.Waiting() > 0 || c.Dead > 0 {
			t.Errorf("left: %+v", c)
		}
	})
}

// Images that nobody waits for may take all their time: what an event asks for is not behind them.
func TestEventsDoNotWaitForBackfill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run(t, nil)
		small := registrytest.Image(9, 10)
		for i := range 20 {
			registrytest.Push(t, r.src, "old", fmt.Sprint(i), registrytest.Image(uint64(i), 1000+i))
		}
		registrytest.Push(t, r.src, "app", "v1", small)
		r.to.Before = func(c registrytest.Call) error {
			if c.Op == "put-blob" && c.Object.Repo == "old" {
				time.Sleep(5 * time.Minute)
			}
			return nil
		}
		for i := range 20 {
			j := tagJob("old", fmt.Sprint(i), "", time.Time{})
			j.Lane = registry.LaneBackfill
			put(t, r.q, j)
		}
		synctest.Wait()
		put(t, r.q, tagJob("app", "v1", "", time.Time{}))
		synctest.Wait()
		names(t, r.dst, "app", "v1", small)
	})
}
