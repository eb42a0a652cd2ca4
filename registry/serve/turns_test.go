package serve_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// ofClient is a request with an ECR token from an address.
func ofClient(addr, token string) *http.Request {
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.RemoteAddr = addr
	r.SetBasicAuth("AWS", token)
	return r
}

// A flood of tokens from one address is asked about a few at a time, waits within bounds, and keeps nobody else waiting.
func TestTokenFloodOfOneClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := new(fakeECR)
		var mu sync.Mutex
		now, most, asked := 0, 0, 0 // questions with bad tokens
		auth := serve.NewECRAuth("m", serve.ECRAuthOptions{Registries: []serve.ECRRegistry{{Host: near, URL: "https://" + near}},
			Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
				if _, token, _ := r.BasicAuth(); strings.HasPrefix(token, "bad") {
					mu.Lock()
					now, asked = now+1, asked+1
					most = max(most, now)
					mu.Unlock()
					time.Sleep(100 * time.Millisecond)
					mu.Lock()
					now--
					mu.Unlock()
				}
				return f.RoundTrip(r)
			})})
		flood := func(n int, kind string) (classes map[registry.Class]int, wait func()) {
			classes = make(map[registry.Class]int)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					err := auth.Authenticate(ofClient(fmt.Sprint("192.0.2.1:", 1000+i), fmt.Sprint(kind, i)), serve.Access{})
					mu.Lock()
					defer mu.Unlock()
					classes[registry.ClassOf(err)]++
				})
			}
			synctest.Wait()
			return classes, wg.Wait
		}
		const waiting, over = 256, 50
		classes, wait := flood(waiting+over, "bad")
		if classes[registry.Unavailable] != over || len(classes) != 1 {
			t.Errorf("refused at once: %v, want %d", classes, over)
		}
		begun := time.Now()
		if err := auth.Authenticate(ofClient("192.0.2.2:1000", "good"), serve.Access{}); err != nil || time.Since(begun) != 0 {
			t.Errorf("another client meanwhile: %v after %v", err, time.Since(begun))
		}
		wait()
		if most != 16 || asked != waiting || classes[registry.Denied] != waiting {
			t.Errorf("%d at once, %d in all, %v; want 16, %d", most, asked, classes, waiting)
		}
		if err := auth.Authenticate(ofClient("192.0.2.1:1000", "good2"), serve.Access{}); err != nil {
			t.Errorf("the client once its flood is over: %v", err)
		}
	})
}
