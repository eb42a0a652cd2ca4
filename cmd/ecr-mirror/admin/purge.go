package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Purger forgets a tag, or with tag "" a repository, of one mirror.
type Purger func(repo, tag string) error

// purgeHandler answers POST /purge?registry=HOST&repository=REPO&tag=TAG. registry is one of a mirror's names, by default of
// the first mirror's; without tag the whole repository is purged.
func purgeHandler(names map[string]Purger, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		host, repo, tag := q.Get("registry"), q.Get("repository"), q.Get("tag")
		purge := names[strings.ToLower(host)]
		if purge == nil {
			http.Error(w, fmt.Sprintf("registry %q is not mirrored here", host), http.StatusNotFound)
			return
		}
		if err := wire.CheckRepo(repo); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if err := purge(repo, tag); err != nil {
			log.ErrorContext(r.Context(), "purge", "registry", host, "repository", repo, "tag", tag, "error", err)
			http.Error(w, "not purged: the log says why", http.StatusInternalServerError)
			return
		}
		log.InfoContext(r.Context(), "purged", "registry", host, "repository", repo, "tag", tag)
		w.WriteHeader(http.StatusNoContent)
	})
}
