package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	maxForm   = 16 << 10 // bytes
	retryMost = 1000     // dead letters at a time
)

// notices say what a form did, by the word that stands in the address afterwards.
var notices = map[string]string{
	"retried": "Tried again: what cannot be done comes back here.",
	"dropped": "Dropped.",
	"purged":  "Purged: the next pull asks upstream.",
}

// forms answers the page's forms: with the page, and on it what was done or why not, so that they work without scripts.
func (p *page) forms(mux *http.ServeMux) {
	for path, f := range map[string]struct {
		do     func(context.Context, url.Values) error
		notice string
		at     string
	}{
		"/forms/retry": {p.retry, "retried", "dead-letters"},
		"/forms/drop":  {p.drop, "dropped", "dead-letters"},
		"/forms/purge": {p.purge, "purged", "purge"},
	} {
		mux.Handle("POST "+path, secured(p.who.only(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			err := r.ParseForm()
			if err != nil {
				err = registry.Errorf(registry.Invalid, "form: %w", err)
			} else {
				err = f.do(r.Context(), r.PostForm)
			}
			p.snapshots.forget()
			if err != nil {
				r.URL.RawQuery = ""
				p.render(w, r, statusOf(err), err)
				return
			}
			http.Redirect(w, r, "/?notice="+f.notice+"#"+f.at, http.StatusSeeOther)
		}))))
	}
}

// retry tries one dead letter again, or with all=1 those that there are.
func (p *page) retry(ctx context.Context, form url.Values) error {
	if form.Get("all") != "" {
		return p.retryAll(ctx)
	}
	f, err := p.letters.find(ctx, form.Get("id"))
	if err == nil {
		_, err = p.letters.retry(ctx, f)
	}
	return err
}

// retryAll tries many. What fails does not keep it from the others.
func (p *page) retryAll(ctx context.Context) error {
	var errs []error
	n := 0
	for f, err := range p.letters.all(ctx) {
		if err != nil {
			return err
		}
		if _, err := p.letters.retry(ctx, f); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.brief().ID, err))
		}
		if n++; n == retryMost {
			break
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return registry.Errorf(registry.ClassOf(errs[0]), "%d of %d cannot be tried again; the first: %w", len(errs), n, errs[0])
}

func (p *page) drop(ctx context.Context, form url.Values) error {
	f, err := p.letters.find(ctx, form.Get("id"))
	if err == nil {
		_, err = p.letters.drop(ctx, f)
	}
	return err
}

func (p *page) purge(ctx context.Context, form url.Values) error {
	return purge(ctx, p.o.Purge, form.Get("registry"), form.Get("repository"), form.Get("tag"), p.o.Logger)
}
