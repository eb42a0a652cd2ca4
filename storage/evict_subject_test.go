package storage

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// step is one thing that happens to the store.
type step struct {
	what   string
	object int // or reader
}

func (s step) String() string { return fmt.Sprint(s.what, " ", s.object) }

// subject is a store and its model, with readers and an upstream that can be held up.
type subject struct {
	dir     string
	store   *Store
	up      *registrytest.Faulty
	objects []registrytest.Blob
	model   model
	readers []reader

	mu    sync.Mutex
	holds map[digest.Digest]chan struct{}
}

type reader struct {
	object int
	c      *registry.Content
	e      *entry // nil: read past the store
}

const modelLimit = 1000

func newSubject(dir string) (*subject, error) {
	m := mem.New()
	s := &subject{dir: dir, up: registrytest.NewFaulty(m), model: model{limit: modelLimit}, holds: make(map[digest.Digest]chan struct{})}
	for i := range 8 {
		b := registrytest.NewBlob("", registrytest.Bytes(uint64(i), 150+50*i))
		s.objects = append(s.objects, b)
		if err := m.PutBlob(s.ctx(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
			return nil, err
		}
	}
	s.up.Body = func(c registrytest.Call) *registrytest.Fault {
		s.mu.Lock()
		defer s.mu.Unlock()
		if hold := s.holds[c.Object.Digest]; hold != nil {
			return &registrytest.Fault{At: 100, Stall: hold}
		}
		return nil
	}
	return s, s.start()
}

// start opens the store. What costs an fsync does not here: what a power cut leaves is TestPublishFails's.
func (s *subject) start() (err error) {
	if s.store, err = Open(Options{Path: s.dir, Size: s.model.limit}); err != nil {
		return err
	}
	s.store.meta.db.NoSync = true
	s.store.publish = func(f *os.File, path string) error { return os.Rename(f.Name(), path) }
	return nil
}

func (s *subject) ctx() context.Context { return context.Background() }

func (s *subject) do(st step) error {
	defer time.Sleep(time.Millisecond) // so that no two accesses are at the same time
	switch st.what {
	case "open":
		return s.open(st.object)
	case "open slowly":
		return s.openSlowly(st.object)
	case "go on":
		s.release(st.object)
	case "read":
		return s.read(st.object)
	case "close":
		if len(s.readers) > 0 {
			s.closeReader(st.object % len(s.readers))
		}
	case "save":
		s.store.saveAccess()
		s.model.save()
		return s.store.meta.flush()
	case "make room":
		s.store.makeRoom()
		s.model.evict(s.model.limit - s.model.limit/20)
	case "restart", "kill":
		return s.restart(st.what == "kill")
	}
	return nil
}

func (s *subject) open(i int) error {
	o := registry.Object{Repo: "app", Digest: s.objects[i].Desc.Digest}
	c, err := s.store.Over("m", s.up).Open(s.ctx(), o, registry.Whole)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	synctest.Wait()
	e := s.model.find(i)
	switch {
	case e == nil:
		e = s.model.reserve(i, s.objects[i].Desc.Size)
	case e.partial && s.holds[o.Digest] == nil: // goes on where it was interrupted
		e.pins++
	}
	if e != nil {
		s.model.touch(e)
		e.pins++
		if e.partial && s.holds[o.Digest] == nil {
			s.model.complete(e)
		}
	}
	if _, past := c.ReadCloser.(past); past != (e == nil) {
		return fmt.Errorf("open: past the store %v, want %v", past, e == nil)
	}
	s.readers = append(s.readers, reader{i, c, e})
	return nil
}

// openSlowly starts a download that stands still.
func (s *subject) openSlowly(i int) error {
	d := s.objects[i].Desc
	e := s.model.find(i)
	before := slices.Clone(s.model.held)
	if e == nil {
		if s.model.reserve(i, d.Size) == nil {
			return nil
		}
		s.model.held = before
	}
	if e == nil || e.partial && s.holds[d.Digest] == nil {
		s.mu.Lock()
		s.holds[d.Digest] = make(chan struct{})
		s.mu.Unlock()
		if e != nil { // interrupted before
			e.pins++
		}
	}
	return s.open(i)
}

func (s *subject) release(i int) {
	d := s.objects[i].Desc.Digest
	s.mu.Lock()
	hold := s.holds[d]
	delete(s.holds, d)
	s.mu.Unlock()
	if hold == nil {
		return
	}
	close(hold)
	synctest.Wait()
	s.model.complete(s.model.find(i))
}

func (s *subject) read(i int) error {
	if len(s.readers) == 0 {
		return nil
	}
	i %= len(s.readers)
	r := s.readers[i]
	if s.holds[s.objects[r.object].Desc.Digest] != nil {
		return nil
	}
	b, err := io.ReadAll(r.c)
	if err != nil || !bytes.Equal(b, s.objects[r.object].Body) {
		return fmt.Errorf("read %d: %d bytes, %w", r.object, len(b), err)
	}
	s.closeReader(i)
	return nil
}

func (s *subject) closeReader(i int) {
	r := s.readers[i]
	s.readers = slices.Delete(s.readers, i, i+1)
	r.c.Close()
	if r.e != nil {
		r.e.pins--
	}
	synctest.Wait()
}

// restart ends the store, in order or as kill -9 does, and starts it again.
func (s *subject) restart(kill bool) error {
	killed := s.dir + "k"
	if kill {
		if err := os.CopyFS(killed, os.DirFS(s.dir)); err != nil {
			return err
		}
	}
	for len(s.readers) > 0 {
		s.closeReader(0)
	}
	if err := s.store.Close(); err != nil {
		return err
	}
	clear(s.holds)
	if kill {
		s.dir = killed
	} else {
		s.model.save()
	}
	for _, e := range s.model.held {
		e.pins, e.unsaved = 0, false
		if !e.partial {
			e.access = e.saved
			continue
		}
		// Its file's time counts, which here is another clock's.
		name := layout{s.dir}.fillName(s.objects[e.object].Desc.Digest) + ".data"
		if err := os.Chtimes(name, e.access, e.access); err != nil {
			return err
		}
	}
	slices.SortFunc(s.model.held, func(a, b *entry) int { return a.access.Compare(b.access) })
	return s.start()
}

// check compares the store with its model, and its books with the disk.
func (s *subject) check() error {
	var want, got []string
	for _, e := range s.model.held {
		want = append(want, fmt.Sprint(e.object, " partial:", e.partial, " pins:", e.pins))
	}
	s.store.mu.Lock()
	used := s.store.space.used
	for it := s.store.space.ring.prev; it != &s.store.space.ring; it = it.prev {
		i := slices.IndexFunc(s.objects, func(b registrytest.Blob) bool { return b.Desc.Digest == it.key.digest })
		got = append(got, fmt.Sprint(i, " partial:", it.key.partial, " pins:", it.pins))
	}
	s.store.mu.Unlock()
	if !slices.Equal(want, got) {
		return fmt.Errorf("longest unused first:\nhave %q\nwant %q", got, want)
	}
	onDisk, err := contentOn(s.dir)
	if err != nil {
		return err
	}
	if used != onDisk || used > s.model.limit {
		return fmt.Errorf("%d bytes booked, %d on the disk, limit %d", used, onDisk, s.model.limit)
	}
	return nil
}

// contentOn is the bytes of all files of content.
func contentOn(dir string) (n int64, err error) {
	for _, pattern := range []string{"blobs/*/*/*", "fills/*.data", "tmp/*"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return 0, err
		}
		for _, path := range paths {
			info, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			n += info.Size()
		}
	}
	return n, nil
}

// run takes the steps, and looks at everything after each.
func (s *subject) run(steps []step) error {
	for i, st := range steps {
		err := s.do(st)
		synctest.Wait()
		if err == nil {
			err = s.check()
		}
		if err != nil {
			return fmt.Errorf("step %d of %v: %w", i+1, steps, err)
		}
	}
	if err := s.restart(false); err != nil {
		return err
	}
	if err := s.store.Close(); err != nil {
		return err
	}
	report, err := Check(s.ctx(), CheckOptions{Path: s.dir})
	if err == nil && report.Problems+report.Leftover > 0 {
		err = fmt.Errorf("fsck: %+v", report)
	}
	return err
}

// close ends what a failed run left.
func (s *subject) close() {
	for _, hold := range s.holds {
		close(hold)
	}
	for len(s.readers) > 0 {
		s.closeReader(0)
	}
	s.store.Close()
}
