package serve

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2"
)

const (
	maxToken      = 16 << 10         // bytes; ECR's tokens have 2 to 4 KiB
	tokenLifetime = 12 * time.Hour   // of ECR's tokens (Amazon ECR User Guide, "Private registry authentication")
	yesFor        = 5 * time.Minute  // for how long a yes is not asked for again
	noFor         = 10 * time.Second // the same for a no
	maxAnswers    = 1 << 14          // remembered; some 150 bytes each
)

// tokenExpires reads when a token says that it expires; false if it is none of ECR's. ECR's tokens are opaque, but those of
// every version until now are base64 of a JSON object with this field. It is a hint: only the registry knows a good token.
func tokenExpires(token string) (time.Time, bool) {
	raw, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return time.Time{}, false
	}
	var t struct {
		Expiration int64 `json:"expiration"`
	}
	if json.Unmarshal(raw, &t) != nil || t.Expiration <= 0 {
		return time.Time{}, false
	}
	return time.Unix(t.Expiration, 0), true
}

// answerKey stands for a token and what was asked with it. The token itself is nowhere in memory once its request is over.
type answerKey [sha256.Size]byte

// answers remembers what a registry said of tokens, in bounded space.
type answers struct {
	key []byte // of the keys, so that memory holds no plain hash of a token
	yes *lru.Cache[answerKey, yes]
	no  *lru.Cache[answerKey, no]
}

type yes struct{ at, expires time.Time }

type no struct {
	at  time.Time
	err error
}

func newAnswers() *answers {
	a := &answers{key: make([]byte, 32)}
	rand.Read(a.key)
	var err1, err2 error
	a.yes, err1 = lru.New[answerKey, yes](maxAnswers)
	a.no, err2 = lru.New[answerKey, no](maxAnswers)
	if err1 != nil || err2 != nil {
		panic("serve: cache of no size") // unreachable: its only error is a size below 1
	}
	return a
}

// of returns the key of a token that is to read repo at the registry host: kind is what of it, for permissions differ.
func (a *answers) of(token, host, kind, repo string) answerKey {
	mac := hmac.New(sha256.New, a.key)
	for _, s := range []string{token, host, kind, repo} {
		fmt.Fprintf(mac, "%d:%s", len(s), s)
	}
	return answerKey(mac.Sum(nil))
}

// allow remembers a yes. It is good for an outage until the token expires, at most tokenLifetime from now.
func (a *answers) allow(k answerKey, token string, now time.Time) {
	expires := now.Add(tokenLifetime)
	if at, ok := tokenExpires(token); ok && at.Before(expires) {
		expires = at
	}
	a.no.Remove(k)
	a.yes.Add(k, yes{now, expires})
}

// deny remembers a no, which ends a yes.
func (a *answers) deny(k answerKey, err error, now time.Time) {
	a.yes.Remove(k)
	a.no.Add(k, no{now, err})
}

// recent returns an answer that need not be asked for again; known is false if there is none.
func (a *answers) recent(k answerKey, now time.Time) (err error, known bool) {
	if y, ok := a.yes.Get(k); ok && now.Sub(y.at) < yesFor && now.Before(y.expires) {
		return nil, true
	}
	if n, ok := a.no.Get(k); ok && now.Sub(n.at) < noFor {
		return n.err, true
	}
	return nil, false
}

// allowed reports whether there was a yes of any age for a token that has not expired.
func (a *answers) allowed(k answerKey, now time.Time) bool {
	y, ok := a.yes.Get(k)
	return ok && now.Before(y.expires)
}
