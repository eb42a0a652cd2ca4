package mirror

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// heardFor is for how long the last call to an upstream says whether it can be reached.
const heardFor = 30 * time.Second

// Upstream is a registry with the state of the road to it. As a Reader it is the registry, under a name, and notes of every
// call whether there was an answer.
type Upstream struct {
	name    string
	reader  registry.Reader
	now     func() time.Time
	metrics *metrics           // nil: no Mirror uses it yet
	bytes   prometheus.Counter // of content read; nil as well
	breaker breaker            // of resolves alone: a layer store that fails is no reason not to ask for tags

	mu         sync.Mutex
	okAt, noAt time.Time // of the last call that was answered, and that was not
	since      time.Time // of the first that was not, of those after the last that was; zero: none
	silence    error     // the last
}

// NewUpstream returns r for Options.Source or Options.Destination and, as the same value, for the Tiers below
// Options.Objects. The name ("source", "destination") is for errors, logs and metrics. One Mirror uses it.
func NewUpstream(name string, r registry.Reader) *Upstream {
	return &Upstream{name: name, reader: r, now: time.Now}
}

// join makes a reader an upstream of m's, unless it is one.
func (m *Mirror) join(name string, r *registry.Reader) *Upstream {
	u, ok := (*r).(*Upstream)
	if !ok {
		u = NewUpstream(name, *r)
	}
	u.now, u.metrics, u.bytes = m.opts.Now, m.metrics, m.metrics.bytes.WithLabelValues(name)
	return u
}

func (u *Upstream) String() string { return u.name }

// Resolve implements registry.Reader.
func (u *Upstream) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	d, err := u.reader.Resolve(ctx, repo, tag)
	u.note(ctx, "resolve", err)
	return d, err
}

// Stat implements registry.Reader.
func (u *Upstream) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	d, err := u.reader.Stat(ctx, o)
	u.note(ctx, "stat", err)
	return d, err
}

// Open implements registry.Reader. Content says that it is From u.
func (u *Upstream) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := u.reader.Open(ctx, o, r)
	u.note(ctx, "open", err)
	if err == nil {
		c.From = u
		c.ReadCloser = &counted{c.ReadCloser, u.bytes}
	}
	return c, err
}

// note learns from a call. One that its caller gave up says nothing.
func (u *Upstream) note(ctx context.Context, call string, err error) {
	silence := err != nil && registry.ClassOf(err) == registry.Unavailable
	if silence && ctx.Err() != nil {
		return
	}
	u.count(call, err)
	u.heard(err)
}

func (u *Upstream) count(call string, err error) {
	if u.metrics != nil { // else no Mirror has it yet
		u.metrics.calls.WithLabelValues(u.name, call, registry.Result(err)).Inc()
	}
}

// counted counts what is read of content.
type counted struct {
	io.ReadCloser
	bytes prometheus.Counter // may be nil
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if c.bytes != nil {
		c.bytes.Add(float64(n))
	}
	return n, err
}

// heard notes how a call ended: only an error of class Unavailable is no answer.
func (u *Upstream) heard(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := u.now()
	if err == nil || registry.ClassOf(err) != registry.Unavailable {
		u.okAt, u.since, u.silence = now, time.Time{}, nil
		return
	}
	if u.noAt, u.silence = now, err; u.since.IsZero() {
		u.since = now
	}
}

// up and down report what the last call said, if that was recently; neither holds when nothing is known.
func (u *Upstream) up() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.okAt.After(u.noAt) && u.now().Sub(u.okAt) < heardFor
}

func (u *Upstream) down() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return !u.noAt.IsZero() && !u.okAt.After(u.noAt) && u.now().Sub(u.noAt) < heardFor
}

// ask resolves a tag unless the upstream is being left alone, and waits at most timeout.
func (u *Upstream) ask(ctx context.Context, repo, tag string, timeout time.Duration) (registry.Descriptor, error) {
	if !u.breaker.allow(u.now()) {
		return registry.Descriptor{}, registry.Errorf(registry.Unavailable, "%s: left alone after repeated failures", u.name)
	}
	d, err := answered(ctx, u, timeout, func(ctx context.Context) (registry.Descriptor, error) { return u.reader.Resolve(ctx, repo, tag) })
	u.count("resolve", err)
	u.breaker.done(u.now(), err != nil && registry.ClassOf(err) == registry.Unavailable)
	if err != nil {
		return registry.Descriptor{}, fmt.Errorf("%s: %w", u.name, err)
	}
	return d, nil
}

// answered calls an upstream with a timeout, and notes whether there was an answer in that time.
func answered(ctx context.Context, u *Upstream, timeout time.Duration, call func(context.Context) (registry.Descriptor, error)) (registry.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d, err := call(ctx)
	if err != nil && ctx.Err() != nil && (registry.ClassOf(err) == registry.Internal || silent(err)) { // whatever the reader made of it
		err = fmt.Errorf("no answer in %v: %w", timeout, context.DeadlineExceeded)
	}
	u.heard(err)
	return d, err
}

// upstreams are those that there are.
func (m *Mirror) upstreams() []*Upstream {
	if m.other == nil {
		return []*Upstream{m.authority}
	}
	return []*Upstream{m.authority, m.other}
}

// reachable and unreachable report that some upstream answered, or that none did, when last asked a short while ago.
func (m *Mirror) reachable() bool {
	for _, u := range m.upstreams() {
		if u.up() {
			return true
		}
	}
	return false
}

func (m *Mirror) unreachable() bool {
	for _, u := range m.upstreams() {
		if !u.down() {
			return false
		}
	}
	return true
}

// probe asks every upstream for o, which is a call like any other, to learn whether one answers. Concurrent probes are one.
func (m *Mirror) probe(o registry.Object) (reached bool) {
	v, _, _ := m.flights.Do("probe", func() (any, error) {
		all := m.upstreams()
		heard := make(chan bool, len(all))
		for _, u := range all {
			go func() {
				_, err := answered(context.Background(), u, m.opts.ResolveTimeout, func(ctx context.Context) (registry.Descriptor, error) { return u.reader.Stat(ctx, o) })
				u.count("stat", err)
				heard <- err == nil || !silent(err)
			}()
		}
		for range all {
			if <-heard {
				return true, nil
			}
		}
		return false, nil
	})
	return v.(bool)
}
