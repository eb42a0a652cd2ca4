package admin

import (
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// A client address (of IPv6: a /64) has so many tries to log in, and gets one back every so often. What succeeds costs none.
const (
	mostTries    = 10
	tryAfter     = 6 * time.Second
	tryEvery     = "6" // the same, for Retry-After
	triesClients = 4096
)

// tries counts wrong logins by client. Safe for concurrent use.
type tries struct {
	mu   sync.Mutex
	used *lru.Cache[netip.Addr, used] // the latest clients: more would be a list that anybody can make long
}

// used is how many tries a client had used at a time.
type used struct {
	n  int
	at time.Time
}

func newTries() *tries {
	cache, _ := lru.New[netip.Addr, used](triesClients) // fails for a size below one alone
	return &tries{used: cache}
}

// take reports whether the client has a try left, and uses it.
func (t *tries) take(client netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	u, _ := t.used.Get(client)
	if back := int(now.Sub(u.at) / tryAfter); back >= u.n {
		u = used{at: now}
	} else {
		u.n, u.at = u.n-back, u.at.Add(time.Duration(back)*tryAfter)
	}
	ok := u.n < mostTries
	if ok {
		u.n++
	}
	t.used.Add(client, u)
	return ok
}

// giveBack undoes a take: the login was right.
func (t *tries) giveBack(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u, ok := t.used.Get(client); ok && u.n > 0 {
		u.n--
		t.used.Add(client, u)
	}
}
