package admin

import (
	"context"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Purger forgets a tag, or with tag "" a repository, of one mirror.
type Purger func(repo, tag string) error

// purgeHandler answers POST /purge?registry=HOST&repository=REPO&tag=TAG. registry is one of a mirror's names, by default of
// the first mirror's; without tag the whole repository is purged.
func purgeHandler(names map[string]Purger, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if err := purge(r.Context(), names, q.Get("registry"), q.Get("repository"), q.Get("tag"), log); err != nil {
			http.Error(w, err.Error(), statusOf(err))
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

func purge(ctx context.Context, names map[string]Purger, host, repo, tag string, log *slog.Logger) error {
	do := names[strings.ToLower(host)]
	if do == nil {
		return registry.Errorf(registry.NotFound, "registry %.256q is not mirrored here", host)
	}
	if err := wire.CheckRepo(repo); err != nil {
		return err
	}
	if err := do(repo, tag); err != nil {
		log.ErrorContext(ctx, "purge", "registry", host, "repository", repo, "tag", tag, "error", err)
		return registry.Errorf(registry.Internal, "not purged: the log says why")
	}
	log.InfoContext(ctx, "purged", "registry", host, "repository", repo, "tag", tag)
	return nil
}
