package storage_test

import (
	"io"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// A fill under way is reported with what it has brought and who reads along; afterwards its object is one of those that are there.
func TestReport(t *testing.T) {
	const size, half = 4 << 20, 1 << 19
	up, _, o, body := upstream(t, size)
	rest := make(chan struct{})
	up.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: half, Stall: rest} }
	s := openStore(t, storage.Options{Size: 1 << 30})
	if got := s.Report(); got.Used != 0 || got.Limit != 1<<30 || got.Objects != 0 || got.Fills != nil {
		t.Errorf("empty: %+v", got)
	}
	r := s.Over("m", up)
	c, err := r.Open(t.Context(), o, registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err = io.ReadFull(c, make([]byte, half)); err != nil {
		t.Fatal(err)
	}
	got := s.Report()
	if len(got.Fills) != 1 || got.Fills[0].Digest != o.Digest || got.Fills[0].Size != size || got.Fills[0].Done < half || got.Fills[0].Done >= size ||
		got.Fills[0].Readers != 1 || got.Used != size || got.Partial != 1 {
		t.Errorf("under way: %+v", got)
	}
	close(rest)
	wantBytes(t, r, o, registry.Whole, body)
	for s.Report().Objects == 0 && t.Context().Err() == nil { // a blob is local a little after its last byte
		time.Sleep(time.Millisecond)
	}
	if got := s.Report(); got.Used != size || got.Objects != 1 || got.Partial != 0 || got.Fills != nil {
		t.Errorf("complete: %+v", got)
	}
}
