package admin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

//go:embed web
var web embed.FS

// maxQuery bounds the page's parameters in bytes: a repository, a tag and a cursor are a few hundred.
const maxQuery = 4 << 10

// pagesAtOne is how many pages are made at a time; others wait.
const pagesAtOne = 4

// page answers GET / with HTML, GET /overview with the same as JSON, and the forms of the page.
type page struct {
	o         Options
	who       *guard
	letters   *deadLetters
	snapshots *snapshots
	started   time.Time
	slots     chan struct{}
	html      *template.Template
	assets    map[string]asset // by path
}

// asset is a file of the page, under a name that is another when the file is.
type asset struct {
	kind string
	body []byte
	href string
}

// visitor is who looks at the page.
type visitor struct {
	Changes bool   // may change something
	Login   bool   // there is a login
	User    string // who is logged in
}

func newPage(o Options, who *guard, letters *deadLetters) *page {
	p := &page{o: o, who: who, letters: letters, snapshots: &snapshots{o: o, d: letters}, started: time.Now(), slots: make(chan struct{}, pagesAtOne),
		assets: make(map[string]asset)}
	for path, kind := range map[string]string{"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml"} {
		body, err := web.ReadFile("web/" + path)
		if err != nil {
			panic(err) // unreachable: it is embedded
		}
		sum := sha256.Sum256(body)
		p.assets[path] = asset{kind, body, "/" + path + "?" + base64.RawURLEncoding.EncodeToString(sum[:6])}
	}
	p.html = template.Must(template.New("").Funcs(words(p)).ParseFS(web, "web/*.html"))
	return p
}

func (p *page) routes(mux *http.ServeMux) {
	mux.Handle("GET /{$}", secured(http.HandlerFunc(p.show)))
	mux.Handle("GET /overview", secured(http.HandlerFunc(p.json)))
	for path := range p.assets {
		mux.Handle("GET /"+path, secured(http.HandlerFunc(p.asset)))
	}
	mux.Handle("GET /favicon.ico", http.RedirectHandler(p.assets["icon.svg"].href, http.StatusSeeOther)) // of what is no page, as a refusal
	mux.Handle("GET /login", secured(p.who.only(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}))))
	p.forms(mux)
}

// secured has a browser do nothing with the page that it does not need: what a registry's names and errors might slip in could
// load nothing, run nothing and send nothing. The policy of referrers is such that forms say where they come from.
func secured(h http.Handler) http.Handler {
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range map[string]string{"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Referrer-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store"} {
			w.Header().Set(name, value)
		}
		h.ServeHTTP(w, r)
	})
}

func (p *page) asset(w http.ResponseWriter, r *http.Request) {
	a := p.assets[r.URL.Path[1:]]
	w.Header().Set("Content-Type", a.kind)
	if r.URL.RequestURI() == a.href {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	_, _ = w.Write(a.body) // the client is gone: nothing to do
}

func (p *page) show(w http.ResponseWriter, r *http.Request) { p.render(w, r, http.StatusOK, nil) }

// render answers with the page, and on it why something was refused.
func (p *page) render(w http.ResponseWriter, r *http.Request, code int, problem error) {
	query := r.URL.Query()
	v, err := p.overviewOf(r, query)
	if v == nil {
		http.Error(w, err.Error(), statusOf(err))
		return
	}
	if err != nil {
		code, problem = statusOf(err), errors.Join(problem, err)
	}
	if problem != nil {
		v.Problem = problem.Error()
	}
	v.Notice = notices[query.Get("notice")]
	v.Who = p.visitor(r)
	var body bytes.Buffer
	if err := p.html.ExecuteTemplate(&body, "page.html", v); err != nil {
		p.o.Logger.ErrorContext(r.Context(), "admin page", "error", err)
		http.Error(w, "the log says why there is no page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(body.Bytes()) // the client is gone: nothing to do
}

func (p *page) json(w http.ResponseWriter, r *http.Request) {
	v, err := p.overviewOf(r, r.URL.Query())
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	_ = e.Encode(v) // the client is gone: nothing to do
}

// overviewOf waits for its turn. Of a query that is refused it returns the overview without images, too.
func (p *page) overviewOf(r *http.Request, query url.Values) (*Overview, error) {
	if len(r.URL.RawQuery) > maxQuery {
		return nil, registry.Errorf(registry.Invalid, "more than %d bytes of parameters", maxQuery)
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-r.Context().Done():
		return nil, registry.Errorf(registry.Unavailable, "too many ask: %w", r.Context().Err())
	}
	return p.overview(r.Context(), query)
}

func (p *page) visitor(r *http.Request) visitor {
	v := visitor{Login: p.who.login != nil}
	if v.Login {
		if _, _, ok := r.BasicAuth(); !ok {
			return v
		}
	}
	if v.Changes = p.who.knows(r) == nil; v.Changes {
		v.User, _, _ = r.BasicAuth()
	}
	return v
}
