package remote

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"oras.land/oras-go/v2/registry/remote/auth"
)

func TestTokensAreBounded(t *testing.T) {
	told := make(map[bool]int)
	r, err := New(Options{Registry: "registry.example", Fetched: func(err error) { told[err == nil]++ }})
	if err != nil {
		t.Fatal(err)
	}
	cache := r.auth.Cache
	const host = "registry.example"
	key := func(i int) string { return fmt.Sprintf("repository:app%d:pull", i) }
	fetches := 0
	set := func(i int) {
		t.Helper()
		token, err := cache.Set(t.Context(), host, auth.SchemeBearer, key(i), func(context.Context) (string, error) { fetches++; return key(i), nil })
		if err != nil || token != key(i) {
			t.Fatalf("set %d: %q, %v", i, token, err)
		}
	}
	const n = 3*maxTokens + maxTokens/2
	for i := range n {
		set(i)
	}
	kept := 0
	for i := range n {
		if token, err := cache.GetToken(t.Context(), host, auth.SchemeBearer, key(i)); err == nil {
			if kept++; token != key(i) {
				t.Fatalf("token %d is %q", i, token)
			}
		}
	}
	if kept > maxTokens || fetches != n {
		t.Errorf("%d tokens kept of %d, want at most %d", kept, fetches, maxTokens)
	}
	if _, err := cache.GetToken(t.Context(), host, auth.SchemeBearer, key(n-1)); err != nil {
		t.Errorf("the latest token: %v", err)
	}
	if scheme, err := cache.GetScheme(t.Context(), host); err != nil || scheme != auth.SchemeBearer {
		t.Errorf("scheme %v, %v", scheme, err)
	}
	boom := errors.New("boom")
	if _, err := cache.Set(t.Context(), host, auth.SchemeBearer, "x", func(context.Context) (string, error) { return "", boom }); !errors.Is(err, boom) {
		t.Errorf("a failed fetch: %v", err)
	}
	if told[true] != n || told[false] != 1 {
		t.Errorf("told of %d tokens and %d failures", told[true], told[false])
	}
}

// A caller that leaves while it fetches a token that others wait for does not fail them.
func TestTokenOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newTokenCache(nil)
		set := func(ctx context.Context, fetch func(context.Context) (string, error)) <-chan error {
			done := make(chan error, 1)
			go func() {
				_, err := cache.Set(ctx, "registry.example", auth.SchemeBearer, "repository:app:pull", fetch)
				done <- err
			}()
			synctest.Wait()
			return done
		}
		leaving, leave := context.WithCancel(t.Context())
		first := set(leaving, func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", fmt.Errorf("get: %w", ctx.Err()) // as net/http says it
		})
		second := set(t.Context(), func(context.Context) (string, error) { return "token", nil })
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("the one that left: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the one that stayed: %v", err)
		}
	})
}
