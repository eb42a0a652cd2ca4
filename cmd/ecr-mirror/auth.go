package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// authenticators makes what decides who may pull. Mirrors with the same htpasswd file share one.
type authenticators struct {
	htpasswd map[string]*serve.Htpasswd // by file
	metrics  *prometheus.Registry
	log      *slog.Logger
}

// of returns the Authenticator of m; nil for none.
func (a authenticators) of(auth config.Auth, m *config.Mirror) (serve.Authenticator, error) {
	switch {
	case auth.HTPasswd != "":
		if h := a.htpasswd[auth.HTPasswd]; h != nil {
			return h, nil
		}
		h, err := serve.NewHtpasswd(auth.HTPasswd, a.log)
		if err != nil {
			return nil, err
		}
		a.htpasswd[auth.HTPasswd] = h
		return h, nil
	case auth.ECR:
		o := serve.ECRAuthOptions{Known: auth.OnOutage == "known"}
		for _, r := range []*config.Registry{m.Destination, &m.Source} { // clients that name neither have a token of here
			if r != nil && r.IsECR() {
				scheme := "https://"
				if r.PlainHTTP() {
					scheme = "http://"
				}
				o.Registries = append(o.Registries, serve.ECRRegistry{Host: r.Host(), URL: scheme + r.Host()})
			}
		}
		e := serve.NewECRAuth(m.Names[0], o)
		a.metrics.MustRegister(e.Collectors()...)
		return e, nil
	}
	return nil, nil
}
