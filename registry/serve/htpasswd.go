package serve

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxVerified bounds the cache of credentials that were right: bcrypt takes tens of milliseconds, and a pull asks often.
const maxVerified = 1024

// Htpasswd is an Authenticator over a file as Apache's htpasswd -B writes it: one user:bcrypt-hash a line. The file is read
// again when it changes; one that cannot be read then is reported and the last good one kept.
type Htpasswd struct {
	path   string
	logger *slog.Logger
	key    []byte        // of the cache's keys, so that memory holds no plain hash of a password
	decoy  []byte        // compared with when the user is unknown, which then takes as long as a wrong password
	busy   chan struct{} // bcrypt at most on every processor

	mu       sync.Mutex
	users    map[string][]byte
	modified time.Time
	size     int64
	verified map[[sha256.Size]byte]struct{}
}

// NewHtpasswd reads the file. logger may be nil.
func NewHtpasswd(path string, logger *slog.Logger) (*Htpasswd, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	h := &Htpasswd{path: path, logger: logger, key: make([]byte, 32), busy: make(chan struct{}, runtime.GOMAXPROCS(0))}
	rand.Read(h.key)
	var err error
	if h.decoy, err = bcrypt.GenerateFromPassword(h.key, bcrypt.DefaultCost); err != nil {
		return nil, fmt.Errorf("htpasswd %s: %w", path, err)
	}
	if err := h.reload(); err != nil {
		return nil, err
	}
	return h, nil
}

// Authenticate implements Authenticator. Every user may read everything.
func (h *Htpasswd) Authenticate(r *http.Request, _, _ string) error {
	user, password, ok := r.BasicAuth()
	if !ok || user == "" && password == "" { // podman sends an empty pair when it has none
		return unauthorized("authentication required")
	}
	h.mu.Lock()
	if err := h.reload(); err != nil {
		h.logger.ErrorContext(r.Context(), "keep the last good htpasswd file", slog.String("error", err.Error()))
	}
	hash, known := h.users[user]
	mac := hmac.New(sha256.New, h.key)
	fmt.Fprintf(mac, "%d:%s%d:%s%s", len(user), user, len(password), password, hash) // a changed hash is another key
	id := [sha256.Size]byte(mac.Sum(nil))
	_, right := h.verified[id]
	h.mu.Unlock()
	if right && known {
		return nil
	}
	if !known {
		hash = h.decoy
	}
	select {
	case h.busy <- struct{}{}:
		defer func() { <-h.busy }()
	case <-r.Context().Done():
		return r.Context().Err()
	}
	if err := bcrypt.CompareHashAndPassword(hash, []byte(password)); err != nil || !known {
		return unauthorized("wrong user or password")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.verified) >= maxVerified {
		clear(h.verified)
	}
	h.verified[id] = struct{}{}
	return nil
}

// reload reads the file if it is another than the one that was read. The caller holds mu, but for the first time.
func (h *Htpasswd) reload() error {
	fi, err := os.Stat(h.path)
	if err != nil {
		return registry.Errorf(registry.Internal, "htpasswd: %w", err)
	}
	if h.users != nil && fi.ModTime().Equal(h.modified) && fi.Size() == h.size {
		return nil
	}
	h.modified, h.size = fi.ModTime(), fi.Size() // a bad file is reported once, not at every request
	if fi.Size() > 1<<20 {
		return registry.Errorf(registry.Invalid, "htpasswd %s: larger than 1 MiB", h.path)
	}
	b, err := os.ReadFile(h.path)
	if err != nil {
		return registry.Errorf(registry.Internal, "htpasswd: %w", err)
	}
	users, err := parseHtpasswd(b)
	if err != nil {
		return registry.Errorf(registry.Invalid, "htpasswd %s: %w", h.path, err)
	}
	h.users, h.verified = users, make(map[[sha256.Size]byte]struct{})
	return nil
}

// parseHtpasswd reads user:hash lines; blank lines and those that begin with # are skipped. Its errors name lines, not hashes.
func parseHtpasswd(b []byte) (map[string][]byte, error) {
	users := make(map[string][]byte)
	n := 0
	for line := range bytes.Lines(b) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(s, ":")
		if !ok || user == "" {
			return nil, fmt.Errorf("line %d: not user:hash", n)
		}
		if _, err := bcrypt.Cost([]byte(hash)); err != nil {
			return nil, fmt.Errorf("line %d: not a bcrypt hash, which htpasswd -B makes", n)
		}
		users[user] = []byte(hash)
	}
	if len(users) == 0 {
		return nil, errors.New("no users")
	}
	return users, nil
}
