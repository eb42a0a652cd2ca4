package ecr

import (
	"context"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Temporary credentials are renewed before they expire: five minutes before, less a random part of it, so that a fleet that started
// together does not ask its role at the same moment. SDK: CredentialsCacheOptions.
func refreshAhead(o *aws.CredentialsCacheOptions) {
	o.ExpiryWindow = 5 * time.Minute
	o.ExpiryWindowJitterFrac = 0.5
}

// renewer renews credentials that AWS refuses although they look valid: those of a role whose session was revoked, of a clock that is
// wrong, or of a file that was replaced.
type renewer struct {
	cache *aws.CredentialsCache // nil: there is nothing to renew

	mu sync.Mutex
	at time.Time // of the last renewal
}

// renew drops credentials that were refused, and reports whether there are others now. Of many calls that were refused at once only the
// first asks anew: those that started before it did just try again.
func (r *renewer) renew(ctx context.Context, started time.Time) bool {
	if r.cache == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at.After(started) {
		return true
	}
	old, err := r.cache.Retrieve(ctx)
	if err != nil {
		return false
	}
	r.cache.Invalidate()
	now, err := r.cache.Retrieve(ctx)
	r.at = time.Now()
	return err == nil && now.AccessKeyID != old.AccessKeyID
}

// stale reports whether an exception says that the credentials are to be renewed, rather than that they may not.
func stale(exception string) bool {
	switch exception {
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId":
		return true
	}
	return false
}

// countedCredentials counts those that differ from the last, and those that could not be had. What a cache answers again is
// no news.
type countedCredentials struct {
	aws.CredentialsProvider
	host    string
	fetched *prometheus.CounterVec

	mu   sync.Mutex
	last string
}

func (c *countedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	creds, err := c.CredentialsProvider.Retrieve(ctx)
	if ctx.Err() != nil {
		return creds, err
	}
	id := creds.AccessKeyID + creds.SessionToken
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || id != c.last {
		c.fetched.WithLabelValues(c.host, registry.Result(err)).Inc()
	}
	if err == nil {
		c.last = id
	}
	return creds, err
}
