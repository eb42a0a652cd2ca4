package serve

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// admission bounds the requests that are served at once, in total and of one client address. What is over a bound is refused
// at once and not queued: its client has a next host, or asks again.
type admission struct {
	total, each int // bounds; each 0: none

	mu     sync.Mutex
	served int
	of     map[netip.Addr]int // by client; no entry is none
}

// errBusy and errGreedy are what the refused are told.
var (
	errBusy   = &registry.Error{Class: registry.Unavailable, RetryAfter: time.Second, Err: errors.New("too many requests at once")}
	errGreedy = &registry.Error{Class: registry.Unavailable, RetryAfter: time.Second, Err: errors.New("too many requests at once from this address")}
)

// enter admits a request of the client at remote, which calls leave when it ends.
func (a *admission) enter(remote string) (leave func(), err error) {
	client := ClientOf(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.served >= a.total:
		return nil, errBusy
	case a.each > 0 && a.of[client] >= a.each:
		return nil, errGreedy
	}
	a.served++
	a.of[client]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.served--
		if a.of[client]--; a.of[client] == 0 {
			delete(a.of, client)
		}
	}, nil
}

// ClientOf is the address that remote, a host:port, counts for where a client has a bound of its own. Of an IPv6 address that is its /64: one host has all of it.
// Addresses of no such form, as in tests, are one client.
func ClientOf(remote string) netip.Addr {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is6() {
		addr = netip.PrefixFrom(addr, 64).Masked().Addr()
	}
	return addr
}
