package registrytest

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Faulty passes calls on to a registry, records them, and makes them fail where its hooks say so. It is a Reader, and a
// Writer, Lister, Deleter and Provisioner as far as the registry that it wraps is. Hooks are set before use, may block, and
// may be called concurrently.
type Faulty struct {
	// Before is asked before a call is passed on; its error is the call's, and the registry never sees it.
	Before func(Call) error
	// After is asked once a call has succeeded; its error is the call's, although it took effect.
	After func(Call) error
	// Body is asked for every body that is opened or put; nil leaves it sound.
	Body func(Call) *Fault

	inner registry.Reader
	mu    sync.Mutex
	calls []Call
}

// NewFaulty wraps r; further roles of r (Writer and so on) are wrapped too.
func NewFaulty(r registry.Reader) *Faulty { return &Faulty{inner: r} }

// Call is one call of a registry.
type Call struct {
	Op     string // resolve stat open missing mount put-blob put-manifest tags referrers delete create
	Repo   string
	Tag    string            // of resolve and put-manifest
	Object registry.Object   // of stat, open, mount, the puts, referrers and delete
	Range  registry.Range    // of open
	Ask    []registry.Object // of missing
	N      int               // this is the Nth call of Op, from 1
}

// String is the call on one line: "resolve app:v1", "open blob app@sha256:… 10+5" (from byte 10 on 5; "10+" to the end;
// nothing for the whole), "missing app 3", "put-manifest app:v1@sha256:…".
func (c Call) String() string {
	ref := c.Repo
	switch c.Op {
	case "stat", "open", "mount", "put-blob":
		ref = c.Object.String()
	}
	if c.Tag != "" {
		ref += ":" + c.Tag
	}
	switch c.Op {
	case "put-manifest", "referrers", "delete":
		ref += "@" + c.Object.Digest.String()
	case "missing":
		ref += fmt.Sprintf(" %d", len(c.Ask))
	case "open":
		if c.Range.Length >= 0 {
			ref += fmt.Sprintf(" %d+%d", c.Range.Offset, c.Range.Length)
		} else if c.Range.Offset > 0 {
			ref += fmt.Sprintf(" %d+", c.Range.Offset)
		}
	}
	return c.Op + " " + ref
}

// Calls returns all calls until now, in their order, each as its String.
func (f *Faulty) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]string, len(f.calls))
	for i, c := range f.calls {
		out[i] = c.String()
	}
	return out
}

// Count returns how many calls there were of ops; without ops, of all.
func (f *Faulty) Count(ops ...string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if len(ops) == 0 || slices.Contains(ops, c.Op) {
			n++
		}
	}
	return n
}

// Forget empties the record; counting starts over.
func (f *Faulty) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = nil
}

// FailNth is a hook that fails the nth call of op with err; n 0 means every call, op "" every operation.
func FailNth(op string, n int, err error) func(Call) error {
	return func(c Call) error {
		if (op == "" || c.Op == op) && (n == 0 || c.N == n) {
			return err
		}
		return nil
	}
}

func (f *Faulty) String() string { return fmt.Sprint(f.inner) }

func (f *Faulty) record(c Call) Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.N = 1
	for _, old := range f.calls {
		if old.Op == c.Op {
			c.N++
		}
	}
	f.calls = append(f.calls, c)
	return c
}

func (f *Faulty) around(c Call, do func(Call) error) error {
	c = f.record(c)
	if f.Before != nil {
		if err := f.Before(c); err != nil {
			return err
		}
	}
	if err := do(c); err != nil {
		return err
	}
	if f.After != nil {
		return f.After(c)
	}
	return nil
}

func (f *Faulty) fault(c Call) *Fault {
	if f.Body == nil {
		return nil
	}
	return f.Body(c)
}

// Resolve implements registry.Reader.
func (f *Faulty) Resolve(ctx context.Context, repo, tag string) (d registry.Descriptor, err error) {
	err = f.around(Call{Op: "resolve", Repo: repo, Tag: tag}, func(Call) (err error) {
		d, err = f.inner.Resolve(ctx, repo, tag)
		return err
	})
	return d, err
}

// Stat implements registry.Reader.
func (f *Faulty) Stat(ctx context.Context, o registry.Object) (d registry.Descriptor, err error) {
	err = f.around(Call{Op: "stat", Repo: o.Repo, Object: o}, func(Call) (err error) {
		d, err = f.inner.Stat(ctx, o)
		return err
	})
	return d, err
}

// Open implements registry.Reader. The content is From f.
func (f *Faulty) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	var c *registry.Content
	err := f.around(Call{Op: "open", Repo: o.Repo, Object: o, Range: r}, func(call Call) (err error) {
		if c, err = f.inner.Open(ctx, o, r); err == nil {
			c.From = f
			if ft := f.fault(call); ft != nil {
				c.ReadCloser = ft.wrap(ctx, c.ReadCloser)
			}
		}
		return err
	})
	if err != nil && c != nil {
		c.Close()
		c = nil
	}
	return c, err
}

// Missing implements registry.Writer.
func (f *Faulty) Missing(ctx context.Context, repo string, objects []registry.Object) (m []registry.Object, err error) {
	err = f.around(Call{Op: "missing", Repo: repo, Ask: slices.Clone(objects)}, func(Call) (err error) {
		m, err = f.inner.(registry.Writer).Missing(ctx, repo, objects)
		return err
	})
	return m, err
}

// Mount implements registry.Writer.
func (f *Faulty) Mount(ctx context.Context, o registry.Object, from string) (ok bool, err error) {
	err = f.around(Call{Op: "mount", Repo: o.Repo, Object: o}, func(Call) (err error) {
		ok, err = f.inner.(registry.Writer).Mount(ctx, o, from)
		return err
	})
	return ok && err == nil, err
}

// PutBlob implements registry.Writer.
func (f *Faulty) PutBlob(ctx context.Context, repo string, d registry.Descriptor, body io.Reader) error {
	o := registry.Object{Repo: repo, Digest: d.Digest}
	return f.around(Call{Op: "put-blob", Repo: repo, Object: o}, func(c Call) error {
		if ft := f.fault(c); ft != nil {
			wrapped := ft.wrap(ctx, io.NopCloser(body))
			defer wrapped.Close()
			body = wrapped
		}
		return f.inner.(registry.Writer).PutBlob(ctx, repo, d, body)
	})
}

// PutManifest implements registry.Writer.
func (f *Faulty) PutManifest(ctx context.Context, repo, tag string, d registry.Descriptor, body []byte) error {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}
	return f.around(Call{Op: "put-manifest", Repo: repo, Tag: tag, Object: o}, func(Call) error {
		return f.inner.(registry.Writer).PutManifest(ctx, repo, tag, d, body)
	})
}

// DeleteManifest implements registry.Deleter.
func (f *Faulty) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	return f.around(Call{Op: "delete", Repo: repo, Object: o}, func(Call) error {
		return f.inner.(registry.Deleter).DeleteManifest(ctx, repo, d)
	})
}

// CreateRepository implements registry.Provisioner; a registry that creates on push has nothing to do.
func (f *Faulty) CreateRepository(ctx context.Context, repo string) error {
	return f.around(Call{Op: "create", Repo: repo}, func(Call) error {
		if p, ok := f.inner.(registry.Provisioner); ok {
			return p.CreateRepository(ctx, repo)
		}
		return nil
	})
}

// Tags implements registry.Lister; After's error follows the tags.
func (f *Faulty) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return list(f, Call{Op: "tags", Repo: repo}, func() iter.Seq2[string, error] {
		return f.inner.(registry.Lister).Tags(ctx, repo)
	})
}

// Referrers implements registry.Lister; After's error follows the referrers.
func (f *Faulty) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[registry.Descriptor, error] {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	return list(f, Call{Op: "referrers", Repo: repo, Object: o}, func() iter.Seq2[registry.Descriptor, error] {
		return f.inner.(registry.Lister).Referrers(ctx, repo, d, artifactType)
	})
}

func list[T any](f *Faulty, c Call, seq func() iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		stopped := false
		err := f.around(c, func(Call) error {
			for v, err := range seq() {
				if err != nil {
					return err
				}
				if stopped = !yield(v, nil); stopped {
					return nil
				}
			}
			return nil
		})
		if err != nil && !stopped {
			yield(*new(T), err)
		}
	}
}

// Short cuts the digests in calls down to their first 6 hex digits, for readable comparisons.
func Short(calls []string) []string {
	out := slices.Clone(calls)
	for i, c := range out {
		if before, after, ok := strings.Cut(c, "sha256:"); ok && len(after) >= 64 {
			out[i] = before + after[:6] + after[64:]
		}
	}
	return out
}
