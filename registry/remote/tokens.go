package remote

import (
	"context"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// maxTokens is how many tokens are fetched before those kept are forgotten, some KiB each. A token service may give one out
// for every repository that a client can think of, and auth.NewCache keeps them all.
const maxTokens = 4096

// tokenCache is an auth.Cache of bounded size. What is forgotten costs one more 401.
type tokenCache struct {
	mu      sync.Mutex
	kept    auth.Cache
	fetched int
	tell    func(error) // may be nil
}

func newTokenCache(tell func(error)) *tokenCache {
	return &tokenCache{kept: auth.NewCache(), tell: tell}
}

func (c *tokenCache) now() auth.Cache {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept
}

// GetScheme implements auth.Cache.
func (c *tokenCache) GetScheme(ctx context.Context, host string) (auth.Scheme, error) {
	return c.now().GetScheme(ctx, host)
}

// GetToken implements auth.Cache.
func (c *tokenCache) GetToken(ctx context.Context, host string, scheme auth.Scheme, key string) (string, error) {
	return c.now().GetToken(ctx, host, scheme, key)
}

// Set implements auth.Cache.
func (c *tokenCache) Set(ctx context.Context, host string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	return c.now().Set(ctx, host, scheme, key, func(ctx context.Context) (string, error) {
		token, err := fetch(ctx)
		switch {
		case err == nil:
			c.count()
		case ctx.Err() != nil:
			// Others wait for this token. Told so in these very words, auth's cache has one of them fetch it in their own time.
			return "", ctx.Err()
		}
		if c.tell != nil && scheme == auth.SchemeBearer {
			c.tell(classed(ctx, err))
		}
		return token, err
	})
}

func (c *tokenCache) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fetched++; c.fetched > maxTokens {
		c.kept, c.fetched = auth.NewCache(), 0
	}
}

func classed(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	return classify(ctx, err)
}
