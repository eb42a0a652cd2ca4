package events

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// A token is at least minToken characters, so that it cannot be guessed; its file at most maxTokenFile bytes.
const (
	minToken     = 16
	maxTokenFile = 4 << 10
)

// token is a shared secret in a file, read again when that changes. While the file cannot be used the last good token counts.
type token struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	seen os.FileInfo // of what sum, or the last attempt at it, was made from
	sum  [sha256.Size]byte
}

func newToken(path string, log *slog.Logger) (*token, error) {
	t := &token{path: path, log: log}
	return t, t.reload()
}

// shownBy compares in constant time: sums, so that not even the length shows.
func (t *token) shownBy(r *http.Request) bool {
	shown := r.Header.Get("X-Api-Key")
	if scheme, rest, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		shown = strings.TrimSpace(rest)
	}
	t.mu.Lock()
	if err := t.reload(); err != nil {
		t.log.ErrorContext(r.Context(), "keep the last good token", "error", err)
	}
	want := t.sum
	t.mu.Unlock()
	got := sha256.Sum256([]byte(shown))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// reload reads the file if it is another than the one that was read. The caller holds mu, but for the first time.
func (t *token) reload() error {
	f, err := os.Open(t.path)
	if err != nil {
		return registry.Errorf(registry.Invalid, "token: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return registry.Errorf(registry.Internal, "token: %w", err)
	}
	if s := t.seen; s != nil && os.SameFile(s, fi) && s.ModTime().Equal(fi.ModTime()) && s.Size() == fi.Size() {
		return nil
	}
	t.seen = fi // a bad file is reported once, not at every request
	b, err := io.ReadAll(io.LimitReader(f, maxTokenFile+1))
	if err != nil {
		return registry.Errorf(registry.Internal, "token: %w", err)
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSpace(line)
	if len(line) < minToken || len(b) > maxTokenFile {
		return fmt.Errorf("token %s: want at least %d characters in its first line, and at most %d bytes: %w", t.path, minToken, maxTokenFile, registry.Invalid)
	}
	t.sum = sha256.Sum256(line)
	return nil
}
