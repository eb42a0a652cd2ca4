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
	busy   chan struct{} // bcrypt at most on every processor

	mu       sync.Mutex
	users    map[string][]byte
	decoy    []byte // compared with when the user is unknown, which then takes as long as a wrong password
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
	if err := h.reload(); err != nil {
		return nil, err
	}
	return h, nil
}

// Authenticate implements Authenticator. Every user may read everything.
func (h *Htpasswd) Authenticate(r *http.Request, _ Access) error {
	user, password, err := credential(r)
	if err != nil {
		return err
	}
	h.mu.Lock()
	if err := h.reload(); err != nil {
		h.logger.ErrorContext(r.Context(), "keep the last good htpasswd file", slog.String("error", err.Error()))
	}
	hash, known := h.users[user]
	decoy := h.decoy
	mac := hmac.New(sha256.New, h.key)
	fmt.Fprintf(mac, "%d:%s%d:%s%s", len(user), user, len(password), password, hash) // a changed hash is another key
	id := [sha256.Size]byte(mac.Sum(nil))
	_, right := h.verified[id]
	h.mu.Unlock()
	if right && known {
		return nil
	}
	if !known {
		hash = decoy
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
	users, cost, err := parseHtpasswd(b)
	if err != nil {
		return registry.Errorf(registry.Invalid, "htpasswd %s: %w", h.path, err)
	}
	decoy, err := bcrypt.GenerateFromPassword(h.key, cost)
	if err != nil {
		return registry.Errorf(registry.Internal, "htpasswd: %w", err)
	}
	h.users, h.decoy, h.verified = users, decoy, make(map[[sha256.Size]byte]struct{})
	return nil
}

// maxCost bounds what one guess costs: 2^14 rounds take about a second.
const maxCost = 14

// parseHtpasswd reads user:hash lines; blank lines and those that begin with # are skipped. cost is that of the costliest
// hash. Its errors name lines, not hashes.
func parseHtpasswd(b []byte) (users map[string][]byte, cost int, err error) {
	users = make(map[string][]byte)
	n := 0
	for line := range bytes.Lines(b) {
		n++
		s := strings.TrimSpace(string(line))
		if s == "" || s[0] == '#' {
			continue
		}
		user, hash, ok := strings.Cut(s, ":")
		if !ok || user == "" {
			return nil, 0, fmt.Errorf("line %d: not user:hash", n)
		}
		c, err := bcrypt.Cost([]byte(hash))
		if err != nil {
			return nil, 0, fmt.Errorf("line %d: not a bcrypt hash, which htpasswd -B makes", n)
		}
		if c > maxCost {
			return nil, 0, fmt.Errorf("line %d: cost %d is more than %d", n, c, maxCost)
		}
		cost = max(cost, c)
		users[user] = []byte(hash)
	}
	if len(users) == 0 {
		return nil, 0, errors.New("no users")
	}
	return users, cost, nil
}
