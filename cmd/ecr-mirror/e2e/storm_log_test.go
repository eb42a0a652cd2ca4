package e2e

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// stormLog is a file of what was done.
type stormLog struct {
	t  *testing.T
	mu sync.Mutex
	f  *os.File
}

func newStormLog(t *testing.T, path string) *stormLog {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return &stormLog{t: t, f: f}
}

func (l *stormLog) write(round int, actor string, n int, began time.Time, what, result string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.f, "%s round %d %s #%d %v: %s: %s\n", began.UTC().Format("15:04:05.000"), round, actor, n,
		time.Since(began).Round(time.Millisecond), what, result); err != nil {
		l.t.Error(err)
	}
}

func (l *stormLog) close() {
	if err := l.f.Close(); err != nil {
		l.t.Error(err)
	}
}
