package main

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/trace"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// front is a mirror as clients know it, under some of its names.
type front struct {
	serve.Mirror
	auth  config.Auth
	tells []serve.ECRRegistry // the registries that know whose ECR token is good
}

// serve says which hosts' pulls m answers. At the destination's host a repository has the name that it has there.
func (w *wiring) serve(cfg *config.Config, c *config.Mirror, m *mirror.Mirror) {
	purge := func(repo, tag string) error {
		err := m.Purge(repo, tag)
		if tag == "" {
			err = errors.Join(err, w.store.Purge(w.name, repo))
		}
		return err
	}
	w.purge = make(map[string]admin.Purger)
	for _, name := range c.Names {
		w.purge[name] = purge
	}
	f := front{Mirror: serve.Mirror{Name: w.name, Names: c.Names, Reader: m, Lister: m}, auth: cfg.AuthOf(c)}
	if c.Destination == nil {
		f.tells = tellers(nil, &c.Source, nil, nil)
		w.fronts = []front{f}
		return
	}
	own, host := w.places[0], c.Destination.Host()
	at, located := own.destination.(registry.Locator)
	located = located && c.Blobs == "redirect"
	if located {
		f.Locator = registry.RenameLocator(at, own.rules.There)
	}
	f.tells = tellers(c.Destination, &c.Source, own.rules.There, nil)
	w.fronts = []front{f}
	if !own.rules.Renames() || !slices.Contains(c.Names, host) {
		return
	}
	here := own.rules.Here
	w.fronts[0].Names = slices.DeleteFunc(slices.Clone(c.Names), func(name string) bool { return name == host })
	w.purge[host] = func(there, tag string) error {
		if repo := here(there); repo != "" {
			return purge(repo, tag)
		}
		return nil
	}
	there := front{auth: f.auth, tells: tellers(c.Destination, &c.Source, nil, here),
		Mirror: serve.Mirror{Name: w.name, Names: []string{host}, Reader: registry.Rename(m, here), Lister: registry.RenameLister(m, here)}}
	if located {
		there.Locator = at
	}
	w.fronts = append(w.fronts, there)
}

// tellers are those of destination and source that are ECR, with the names that repositories have there. The destination, if
// there is one, comes first: clients that name neither have a token of here.
func tellers(destination, source *config.Registry, there, here func(string) string) (all []serve.ECRRegistry) {
	add := func(r *config.Registry, repo func(string) string) {
		if r == nil || !r.IsECR() {
			return
		}
		scheme := "https://"
		if r.PlainHTTP() {
			scheme = "http://"
		}
		all = append(all, serve.ECRRegistry{Host: r.Host(), URL: scheme + r.Host(), Repo: repo})
	}
	add(destination, there)
	add(source, here)
	return all
}

// newFront puts the mirrors behind one handler, each with what decides who may pull. Mirrors with the same htpasswd file share
// one.
func newFront(limits config.Limits, fronts []front, metrics *prometheus.Registry, traces *trace.Tracer, log *slog.Logger) (*serve.Handler, error) {
	o := serve.Options{Logger: log, Answered: traces.Answered(), MaxConcurrent: limits.Requests, MaxPerClient: limits.RequestsPerClient}
	files := make(map[string]*serve.Htpasswd)
	for _, f := range fronts {
		switch file := f.auth.HTPasswd; {
		case file != "":
			if files[file] == nil {
				h, err := serve.NewHtpasswd(file, log)
				if err != nil {
					return nil, fmt.Errorf("mirror %s: %w", f.Names[0], err)
				}
				files[file] = h
			}
			f.Auth = files[file]
		case f.auth.ECR:
			e := serve.NewECRAuth(f.Names[0], serve.ECRAuthOptions{Registries: f.tells, Known: f.auth.OnOutage == "known"})
			metrics.MustRegister(e.Collectors()...)
			f.Auth = e
		}
		o.Mirrors = append(o.Mirrors, f.Mirror)
	}
	return serve.New(o), nil
}
