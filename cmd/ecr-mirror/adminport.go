package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// shown is a mirror on the admin page.
func shown(c *config.Mirror, at []place, m *mirror.Mirror) admin.Mirror {
	s := admin.Mirror{Name: c.Names[0], Source: c.Source.Host(), Destinations: []admin.Destination{}, Health: m.Health}
	for _, p := range at {
		host := p.name
		if p.name == ownName {
			host = c.Destination.Host()
		}
		s.Destinations = append(s.Destinations, admin.Destination{Name: p.name, Host: host})
	}
	return s
}

// adminHandler is what the admin port answers.
func (a *app) adminHandler(cfg *config.Config) (http.Handler, error) {
	compare := &comparing{planner: a.planner()}
	status := &answerer{a.queue, a.places}
	o := admin.Options{
		Metrics: a.metrics, Ready: a.notReady, Queue: a.queue, Purge: a.purge, Take: a.take, Logger: a.log,
		Status: func(ctx context.Context, q url.Values) (any, error) { return status.answer(ctx, q) },
		Plan:   compare.plan, Sync: compare.sync, Progress: compare.progress,
		Version: buildVersion(), Mirrors: a.shown, Workers: a.workers, Store: a.store.Report,
		Prices: admin.Prices{TransferPerGB: float64(cfg.Costs.TransferPerGB), NATPerGB: float64(cfg.Costs.NATPerGB), ZonePerGB: float64(cfg.Costs.ZonePerGB)},
	}
	if file := cfg.AdminAuth.HTPasswd; file != "" {
		login, err := serve.NewHtpasswd(file, a.log)
		if err != nil {
			return nil, fmt.Errorf("adminAuth: %w", err)
		}
		o.Login = login
	}
	return admin.New(o), nil
}
