package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// adminHandler is what the admin port answers.
func (a *app) adminHandler(cfg *config.Config) (http.Handler, error) {
	compare := &comparing{planner: a.planner()}
	status := &answerer{a.queue, a.places}
	o := admin.Options{
		Metrics: a.metrics, Ready: a.notReady, Queue: a.queue, Purge: a.purge, Take: a.take, Logger: a.log,
		Status: func(ctx context.Context, q url.Values) (any, error) { return status.answer(ctx, q) },
		Plan:   compare.plan, Sync: compare.sync, Progress: compare.progress,
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
