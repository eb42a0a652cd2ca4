package storage

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	openPatience = 2 * time.Second        // a fill's first answer is asked for again for so long while a reader waits,
	openPromise  = 8 * time.Second        // or for so long if upstream says when to come back,
	openDelay    = 200 * time.Millisecond // at first after about
	silence      = 6 * time.Second        // after which an upstream is asked beside the call that it does not answer
	plainFor     = 10 * time.Minute       // an upstream that ignored a range is asked for whole blobs
)

// start asks upstream, which is also what gives the starter the right to read, and prepares the file. The first range is one
// segment, so that the first byte and the size come early.
func (f *fill) start(ctx context.Context) error {
	began, name := time.Now(), f.s.fillName(f.digest)
	o := registry.Object{Repo: f.origin.repo, Kind: f.origin.kind, Digest: f.digest}
	f.s.mu.Lock()
	f.item = f.s.space.pin(key{f.digest, true}, time.Now())
	f.s.mu.Unlock()
	var bits []byte
	if f.item != nil {
		if file, err := openFillFile(name, f.digest); err == nil {
			f.setFile(file)
			bits = file.bits
		}
	}
	r, missing := f.firstRange(bits)
	if f.starter.plain.Load() > began.UnixNano() && bits == nil {
		r = registry.Whole
	}
	st, err := f.ask(ctx, o, r, missing)
	if registry.ClassOf(err) == registry.Invalid && err != nil && r.Offset > 0 { // past the end, or the file belongs to something else
		bits = nil
		f.setFile(nil)
		st, err = f.ask(ctx, o, registry.Range{Length: segmentSize}, true)
	}
	if err == nil && st.content != nil && st.content.Sequential && bits == nil && r.Length >= 0 {
		st.shut() // nothing has been read
		f.starter.plain.Store(began.Add(plainFor).UnixNano())
		r = registry.Whole
		st, err = f.ask(ctx, o, r, true)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = errClosed
		}
		return err
	}
	f.desc, f.from, f.opening = st.desc, f.starter.up, st
	f.desc.Digest = f.digest
	if st.content != nil {
		f.single, f.host = st.content.Sequential || r.Length < 0, st.content.Host
		if st.content.From != nil {
			f.from = st.content.From
		}
	}
	f.hash = f.digest.Algorithm().Hash()
	if f.desc.Size == 0 { // no byte of it can be withheld: its readers end as soon as it is ready
		if err := f.verify(); err != nil {
			return err
		}
	}
	if f.file != nil && f.file.size != f.desc.Size {
		bits = nil
		f.setFile(nil)
	}
	if f.file == nil {
		bits = nil
		if err := f.allocate(name); err != nil {
			return err
		}
	}
	plan := newSchedule(f.desc.Size, bits)
	f.resumed = plan.left < f.desc.Size
	if c := st.content; c != nil && c.Range.Length > 0 {
		st.run = plan.claim(int(c.Range.Offset/segmentSize), c.Range.Length, f.desc.Size)
	} else {
		st.shut()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan, f.pace = plan, newPace(time.Since(began), streamsOf(f.lane), time.Now())
	return nil
}

// firstRange is the first segment that the starter needs and the file lacks; false when the file lacks nothing.
func (f *fill) firstRange(bits []byte) (registry.Range, bool) {
	i, n := f.first/segmentSize, int64(0)
	if f.file != nil {
		n = segments(f.file.size, segmentSize)
	}
	for k := range n {
		if at := (i + k) % n; bits[at/8]&(1<<(at%8)) == 0 {
			i = at
			return registry.Range{Offset: i * segmentSize, Length: segmentSize}, true
		}
	}
	return registry.Range{Offset: i * segmentSize, Length: segmentSize}, n == 0
}

// ask opens r of o or, when no byte is missing, asks whether o is there. An upstream in passing trouble is asked again while
// a reader waits.
func (f *fill) ask(ctx context.Context, o registry.Object, r registry.Range, missing bool) (*stream, error) {
	for began, delay := time.Now(), openDelay; ; delay *= 2 {
		st := f.askSilent(ctx, o, r, missing)
		if st.err == nil {
			return st, nil
		}
		wait, limit := delay/2+rand.N(delay), openPatience
		if after := retryAfter(st.err); after > 0 {
			wait, limit = after+rand.N(openDelay), openPromise
		}
		if c := registry.ClassOf(st.err); c != registry.Throttled && c != registry.Unavailable || f.waiting.Load() == 0 ||
			time.Since(began)+wait > limit {
			return nil, st.err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(wait):
		}
	}
}

// askSilent asks an upstream that says nothing once more, for a connection may be dead. The first good answer counts.
func (f *fill) askSilent(ctx context.Context, o registry.Object, r registry.Range, missing bool) *stream {
	f.mu.Lock()
	ctx = registry.WithLane(ctx, f.lane)
	f.mu.Unlock()
	answers := make(chan *stream, 2)
	var asked []*stream
	ask := func() {
		st := newStream(ctx, f, nil)
		asked = append(asked, st)
		f.streams.Go(func() {
			if missing {
				st.err = st.open(f.starter.up, o, r)
			} else {
				st.desc, st.err = f.starter.up.Stat(f.s.wary(st.ctx, f.digest), o)
			}
			answers <- st
		})
	}
	ask()
	again := time.NewTimer(silence)
	defer again.Stop()
	for answered := 0; ; {
		select {
		case <-again.C:
			ask()
		case st := <-answers:
			if answered++; st.err != nil && answered < len(asked) {
				continue // the other may still be lucky
			}
			for _, other := range asked {
				if other != st {
					other.cancel(nil)
				}
			}
			if answered < len(asked) {
				f.streams.Go(func() { (<-answers).shut() })
			}
			if st.err != nil {
				st.shut()
			}
			return st
		}
	}
}

// retryAfter is how long err says to wait; 0 when it does not.
func retryAfter(err error) time.Duration {
	var e *registry.Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
