package e2e

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sample is what a mirror takes when nothing goes on.
type sample struct {
	goroutines, files int
	memory            int64 // resident, bytes
	queue, cache      int64 // bytes on disk
}

func (s sample) String() string {
	return fmt.Sprintf("{%d goroutines, %d files, %d MiB, queue %d KiB, cache %d KiB}", s.goroutines, s.files, s.memory>>20, s.queue>>10, s.cache>>10)
}

// What a mirror takes when nothing goes on. A leak of one for each pull passes these within a round.
const (
	mostGoroutines = 120
	mostFiles      = 80
)

// measure waits until connections have been given up, and fails the test when they are not.
func (m *subject) measure() (s sample) {
	for limit := time.Now().Add(90 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		s = m.look()
		if s.goroutines <= mostGoroutines && s.files <= mostFiles {
			break
		}
		if time.Now().After(limit) {
			m.s.t.Errorf("%s takes %v when nothing goes on", m.name, s)
			break
		}
	}
	if most := int64(stormSize + stormSize/8); s.cache > most {
		m.s.t.Errorf("%s has %d bytes in its cache of %d", m.name, s.cache, stormSize)
	}
	return s
}

func (m *subject) look() (s sample) {
	t := m.s.t
	for line := range strings.Lines(m.get("/metrics")) {
		if n, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(n), 64)
			if err != nil {
				t.Error(err)
			}
			s.goroutines = int(f)
		}
	}
	proc := fmt.Sprintf("/proc/%d/", m.cmd.Process.Pid)
	files, err := os.ReadDir(proc + "fd")
	if err != nil {
		t.Error(err)
	}
	s.files = len(files)
	status, err := os.Open(proc + "status")
	if err != nil {
		t.Error(err)
		return s
	}
	defer status.Close()
	for in := bufio.NewScanner(status); in.Scan(); {
		if _, err := fmt.Sscanf(in.Text(), "VmRSS: %d kB", &s.memory); err == nil {
			s.memory <<= 10
		}
	}
	if info, err := os.Stat(filepath.Join(m.cache, "queue.db")); err == nil { // a sidecar's is never written
		s.queue = info.Size()
	}
	for _, dir := range []string{"blobs", "fills"} {
		err := filepath.WalkDir(filepath.Join(m.cache, dir), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil // it may go while we look
			}
			if info, err := d.Info(); err == nil {
				s.cache += info.Size()
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	return s
}

// trend compares the first third of the rounds with the last: nothing may have grown. It speaks of long runs, and of processes that live
// through them.
func (s *storm) trend() {
	n := len(s.samples) / 3
	if n < 3 {
		return
	}
	for i, m := range s.mirrors {
		sum := func(rows [][]sample) (all sample) {
			for _, row := range rows {
				all.goroutines += row[i].goroutines
				all.files += row[i].files
				all.memory += row[i].memory
			}
			return sample{all.goroutines / n, all.files / n, all.memory / int64(n), 0, 0}
		}
		first, last := sum(s.samples[:n]), sum(s.samples[len(s.samples)-n:])
		if last.goroutines > first.goroutines*3/2+10 || last.files > first.files*3/2+10 || last.memory > first.memory*3/2+64<<20 {
			s.t.Errorf("%s grows: from %v to %v", m.name, first, last)
		}
	}
}
