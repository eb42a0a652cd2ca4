package serve_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// One address cannot take all slots; a later part of a blob needs none; what leaves makes room.
func TestAdmissionPerClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Names: []string{source}, Reader: hanging{}}}, MaxConcurrent: 5, MaxPerClient: 2})
		blob := "/v2/app/blobs/" + digest.FromString("x").String()
		var mu sync.Mutex
		answers := make(map[string][]int) // by client, of those that were not cut
		var wg sync.WaitGroup
		ask := func(client, rng string) {
			wg.Go(func() {
				r := httptest.NewRequest("GET", blob, nil)
				r.RemoteAddr = client
				if rng != "" {
					r.Header.Set("Range", rng)
				}
				rec := httptest.NewRecorder()
				if !aborts(func() { h.ServeHTTP(rec, r) }) {
					mu.Lock()
					defer mu.Unlock()
					answers[client] = append(answers[client], rec.Code)
				}
			})
			synctest.Wait()
		}
		refused := func(want string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if got := fmt.Sprint(answers); got != want {
				t.Errorf("refused at once: %s, want %s", got, want)
			}
		}
		for range 3 {
			ask("192.0.2.1:1000", "")
		}
		refused("map[192.0.2.1:1000:[503]]")
		ask("192.0.2.1:1001", "bytes=5-") // another port is the same client, but this continues
		for _, port := range []string{"1", "2"} {
			ask("[2001:db8::"+port+"]:1000", "") // one /64 is one client
		}
		ask("[2001:db8::3]:1000", "")
		refused("map[192.0.2.1:1000:[503] [2001:db8::3]:1000:[503]]")
		ask("[2001:db8:1::1]:1000", "")
		ask("[2001:db8:2::1]:1000", "") // the sixth in all
		refused("map[192.0.2.1:1000:[503] [2001:db8:2::1]:1000:[503] [2001:db8::3]:1000:[503]]")
		wg.Wait() // all have been told that nobody answers
		clear(answers)
		ask("192.0.2.1:1000", "")
		refused("map[]")
		wg.Wait()
	})
}

func TestShedIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: hanging{}}}, MaxConcurrent: 1})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/v2/app/manifests/v1", nil))
			})
		}
		wg.Wait()
		if got := count(t, h, "ecr_mirror_shed_total", "limit=total"); got != 2 {
			t.Errorf("%v shed, want 2", got)
		}
	})
}
