package main

import (
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// connections bounds the open connections of a listener. One over a bound is closed before anything is read from it, which
// every client takes for a host that is down: a connection left waiting would be worse, for no client gives up on that soon.
// Requests are bounded lower, and refused politely; this is for what never becomes a request.
type connections struct {
	total int
	each  int // of one address, or IPv6 /64; 0: no bound of its own
}

// track returns a hook for http.Server.ConnState.
func (c connections) track() func(net.Conn, http.ConnState) {
	var mu sync.Mutex
	open := make(map[net.Conn]netip.Addr)
	of := make(map[netip.Addr]int)
	return func(conn net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		switch state {
		case http.StateNew:
			addr := serve.ClientOf(conn.RemoteAddr().String())
			if len(open) >= c.total || c.each > 0 && of[addr] >= c.each {
				_ = conn.Close() // the server finds it closed
				return
			}
			open[conn] = addr
			of[addr]++
		case http.StateClosed, http.StateHijacked:
			addr, counted := open[conn]
			if !counted {
				return
			}
			delete(open, conn)
			if of[addr]--; of[addr] == 0 {
				delete(of, addr)
			}
		}
	}
}
