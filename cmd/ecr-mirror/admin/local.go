package admin

import (
	"net"
	"net/http"
)

// onlyFromHere refuses requests that do not come from this host, and those that a web page makes a browser on it send:
// across origins, or by a name that was made to resolve to loopback.
func onlyFromHere(h http.Handler) http.Handler {
	h = http.NewCrossOriginProtection().Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r.RemoteAddr) || !loopback(r.Host) {
			http.Error(w, "only from this host, by a loopback address: ask where the mirror runs", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func loopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}
