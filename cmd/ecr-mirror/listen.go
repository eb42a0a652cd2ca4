package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"

	"github.com/ecr-mirror/ecr-mirror/config"
)

// routes sends the paths of webhooks to them and all else to the front. It is no http.ServeMux, which redirects a path that
// it would write in another way.
type routes struct {
	hooks map[string]http.Handler
	front http.Handler
}

func (r routes) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if h := r.hooks[req.URL.Path]; h != nil {
		h.ServeHTTP(w, req)
		return
	}
	r.front.ServeHTTP(w, req)
}

func (a *app) listen(cfg *config.Config, front, admin http.Handler) error {
	al, err := net.Listen("tcp", cfg.Admin)
	if err != nil {
		return fmt.Errorf("listen for admin: %w", err)
	}
	a.adminAddr = al.Addr()
	a.admin = listener("admin", al, admin, connections{total: adminConnections}, a.log)
	if !cfg.Fronts() && len(a.hooks) == 0 { // nobody has anything to ask here
		return nil
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen: %w", err), al.Close())
	}
	a.registryAddr = l.Addr()
	if cfg.TLS != nil {
		c, err := tlsConfig(cfg.TLS.Cert, cfg.TLS.Key, cfg.TLS.ClientCA, a.log)
		if err != nil {
			return errors.Join(err, l.Close(), al.Close())
		}
		l = tls.NewListener(l, c)
		a.metrics.MustRegister(certificateExpiry(c))
	}
	a.front = []part{listener("registry", l, front, connections{cfg.Limits.Connections, cfg.Limits.ConnectionsPerClient}, a.log)}
	return nil
}
