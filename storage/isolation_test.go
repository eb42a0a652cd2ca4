package storage_test

import (
	"errors"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// TestIsolation shows that a place reads only what its own upstream says it may: on the disk and in a fill under way.
func TestIsolation(t *testing.T) {
	const size = 1 << 20
	for _, underWay := range []bool{false, true} {
		up, m, o, body := upstream(t, size)
		put(t, m, "granted", registrytest.NewBlob("application/octet-stream", body))
		half := make(chan struct{})
		if underWay {
			up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: size / 2, Stall: half} }
		}
		stranger, friend := registrytest.NewFaulty(mem.New()), registrytest.NewFaulty(m)
		s := openStore(t, storage.Options{})
		mine, theirs, allowed := s.Over("a", up), s.Over("b", stranger), s.Over("c", friend)
		wantBytes(t, mine, o, registry.Range{Offset: 0, Length: 5}, body[:5])
		if !underWay {
			wantBytes(t, mine, o, registry.Whole, body)
		}
		up.Forget()

		in := func(repo string) registry.Object { return registry.Object{Repo: repo, Digest: o.Digest} }
		for name, tt := range map[string]struct {
			r  registry.Reader
			o  registry.Object
			by *registrytest.Faulty
		}{
			"another repository": {mine, in("other"), up},
			"another namespace":  {theirs, in("app"), stranger},
			"another kind":       {mine, registry.Object{Repo: "app", Kind: registry.Manifest, Digest: o.Digest}, up},
		} {
			before := tt.by.Count()
			if _, err := tt.r.Open(t.Context(), tt.o, registry.Range{Offset: 0, Length: 5}); !errors.Is(err, registry.NotFound) {
				t.Errorf("under way %v, %s: open: %v, want not found", underWay, name, err)
			}
			if _, err := tt.r.Stat(t.Context(), tt.o); !errors.Is(err, registry.NotFound) {
				t.Errorf("under way %v, %s: stat: %v, want not found", underWay, name, err)
			}
			if n := tt.by.Count() - before; n != 2 {
				t.Errorf("under way %v, %s: its upstream was asked %d times, want twice", underWay, name, n)
			}
		}
		up.Forget()
		for range 2 { // asked once, remembered then; never a second transfer
			wantBytes(t, mine, in("granted"), registry.Range{Offset: 0, Length: 5}, body[:5])
			wantBytes(t, allowed, o, registry.Range{Offset: 0, Length: 5}, body[:5])
		}
		wantCalls(t, up, 0, 1)
		wantCalls(t, friend, 0, 1)
		close(half)
		wantBytes(t, allowed, o, registry.Whole, body)
		wantBytes(t, mine, in("granted"), registry.Whole, body)
		wantCalls(t, up, 0, 1)
		wantCalls(t, friend, 0, 1)
	}
}

// TestFromStaysInItsPlace shows that further ranges of a joined fill go to one's own upstream.
func TestFromStaysInItsPlace(t *testing.T) {
	up, m, o, _ := upstream(t, 2<<20)
	hold := make(chan struct{})
	defer close(hold)
	up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 100, Stall: hold} }
	friend := registrytest.NewFaulty(m)
	s := openStore(t, storage.Options{})
	for _, tt := range []struct {
		namespace string
		up        registry.Reader
	}{{"a", up}, {"c", friend}} {
		c, err := s.Over(tt.namespace, tt.up).Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		if c.From != tt.up {
			t.Errorf("namespace %s: content is from %v, want its own upstream", tt.namespace, c.From)
		}
		c.Close()
	}
}

// TestAnotherUpstreamsRefusal shows that a reader who joined a fill of another place does not get that place's error.
func TestAnotherUpstreamsRefusal(t *testing.T) {
	up, m, o, body := upstream(t, 200000)
	joined, asked := make(chan struct{}), make(chan struct{})
	up.Before = func(registrytest.Call) error {
		close(asked)
		<-joined
		return registry.Errorf(registry.Denied, "token expired")
	}
	friend := registrytest.NewFaulty(m)
	friend.After = func(c registrytest.Call) error {
		if c.Op == "stat" {
			close(joined)
		}
		return nil
	}
	s := openStore(t, storage.Options{})
	denied := make(chan error)
	go func() {
		_, err := s.Over("a", up).Open(t.Context(), o, registry.Whole)
		denied <- err
	}()
	<-asked
	wantBytes(t, s.Over("b", friend), o, registry.Whole, body)
	if err := <-denied; !errors.Is(err, registry.Denied) {
		t.Errorf("starter: %v, want denied", err)
	}
	wantCalls(t, friend, 1, 1)
}

// TestAnotherRepositorysRefusal is the same within one view: a repository that lacks the blob does not hide another that has it.
func TestAnotherRepositorysRefusal(t *testing.T) {
	up, _, o, body := upstream(t, 200000)
	lacks := registry.Object{Repo: "lacks", Digest: o.Digest}
	joined, asked := make(chan struct{}), make(chan struct{})
	up.Before = func(c registrytest.Call) error {
		if c.Op == "open" && c.Object == lacks {
			close(asked)
			<-joined
		}
		return nil
	}
	up.After = func(c registrytest.Call) error {
		if c.Op == "stat" {
			close(joined)
		}
		return nil
	}
	r := openStore(t, storage.Options{}).Over("m", up)
	refused := make(chan error)
	go func() {
		_, err := r.Open(t.Context(), lacks, registry.Whole)
		refused <- err
	}()
	<-asked
	wantBytes(t, r, o, registry.Whole, body)
	if err := <-refused; !errors.Is(err, registry.NotFound) {
		t.Errorf("starter: %v, want not found", err)
	}
}
