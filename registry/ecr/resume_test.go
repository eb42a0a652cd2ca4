package ecr_test

import (
	"bytes"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// An upload that breaks off goes on with the next attempt: what has arrived is not sent again.
func TestUploadGoesOn(t *testing.T) {
	const part, parts = 100_000, 6
	blob := registrytest.NewBlob("application/octet-stream", registrytest.Bytes(1, parts*part-10))
	for name, tt := range map[string]struct {
		op    string // that fails three times in a row, which ends an attempt
		nth   int    // from this call on
		fault ecrtest.Fault
		sent  int // parts in all
		begun int // uploads in all
		fails int // attempts before the one that succeeds
	}{
		"a part fails":                    {"UploadLayerPart", 3, ecrtest.Fault{Status: 503}, parts + 3, 1, 1},
		"a part fails after effect":       {"UploadLayerPart", 3, ecrtest.Fault{HangUp: true, After: true}, parts + 3, 1, 1},
		"the first part fails":            {"UploadLayerPart", 0, ecrtest.Fault{Status: 503}, parts + 3, 2, 1},
		"the completion fails":            {"CompleteLayerUpload", 0, ecrtest.Fault{Status: 503}, parts, 1, 1},
		"the completion fails after":      {"CompleteLayerUpload", 0, ecrtest.Fault{Status: 503, After: true}, parts, 1, 1},
		"ECR forgot the upload":           {"UploadLayerPart", 3, ecrtest.Fault{Status: 400, Code: "UploadNotFoundException"}, 3 + 1 + parts, 2, 1},
		"throttled":                       {"UploadLayerPart", 5, ecrtest.Fault{Status: 400, Code: "ThrottlingException"}, parts + 3, 1, 1},
		"the beginning fails":             {"InitiateLayerUpload", 0, ecrtest.Fault{Status: 503}, parts, 4, 3},
		"the part is not what was wanted": {"UploadLayerPart", 2, ecrtest.Fault{Status: 400, Code: "InvalidLayerPartException"}, 2 + 1 + parts, 2, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			emu, r := start(t, ecrtest.Options{PartSize: part})
			if err := r.CreateRepository(t.Context(), "app"); err != nil {
				t.Fatal(err)
			}
			calls, faults := make(chan int, 1), 3
			calls <- 0
			emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
				if c.Op != tt.op {
					return ecrtest.Fault{}
				}
				n := <-calls
				calls <- n + 1
				if n >= tt.nth && n < tt.nth+faults {
					return tt.fault
				}
				return ecrtest.Fault{}
			})
			if tt.fault.Code == "UploadNotFoundException" || tt.fault.Code == "InvalidLayerPartException" {
				faults = 1 // it is not tried again
			}
			put := func() error { return r.PutBlob(t.Context(), "app", blob.Desc, bytes.NewReader(blob.Body)) }
			fails := 0
			for err := put(); err != nil; err = put() {
				if fails++; fails > tt.fails {
					t.Fatalf("attempt %d: %v", fails, err)
				}
			}
			if fails != tt.fails {
				t.Errorf("%d attempts failed, want %d", fails, tt.fails)
			}
			if sent, begun := count(emu, "UploadLayerPart"), count(emu, "InitiateLayerUpload"); sent != tt.sent || begun != tt.begun {
				t.Errorf("%d parts and %d uploads, want %d and %d", sent, begun, tt.sent, tt.begun)
			}
			missing, err := r.Missing(t.Context(), "app", []registry.Object{{Repo: "app", Digest: blob.Desc.Digest}})
			if err != nil || len(missing) != 0 {
				t.Errorf("missing after all: %v, %v", missing, err)
			}
		})
	}
}

// Wrong bytes end an upload for good: the next attempt begins anew, and succeeds.
func TestWrongBytesDoNotGoOn(t *testing.T) {
	emu, r := start(t, ecrtest.Options{PartSize: 100_000})
	if err := r.CreateRepository(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	blob := registrytest.NewBlob("application/octet-stream", registrytest.Bytes(1, 300_000))
	wrong := bytes.Clone(blob.Body)
	wrong[150_000] ^= 1
	if err := r.PutBlob(t.Context(), "app", blob.Desc, bytes.NewReader(wrong)); registry.ClassOf(err) != registry.Corrupt {
		t.Errorf("wrong bytes: %v", err)
	}
	if err := r.PutBlob(t.Context(), "app", blob.Desc, bytes.NewReader(blob.Body)); err != nil {
		t.Errorf("right bytes: %v", err)
	}
	if n := count(emu, "InitiateLayerUpload"); n != 2 {
		t.Errorf("%d uploads, want 2", n)
	}
}
