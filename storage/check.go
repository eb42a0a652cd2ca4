package storage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
	"go.etcd.io/bbolt"
	"golang.org/x/time/rate"
)

// CheckOptions configure Check. Only Path is required.
type CheckOptions struct {
	Path           string // directory of a store that no process uses
	Repair         bool   // drop what is bad, so that it is fetched again when somebody asks for it
	Concurrency    int    // objects read at a time; 0: one per CPU
	BytesPerSecond int64  // read no faster; 0: as fast as the disk is

	// Problem is told of each problem when it is found, Progress now and then how many bytes of content have been read, of
	// about how many. They are called one at a time; nil: not at all.
	Problem  func(Problem)
	Progress func(done, total int64)
}

// Problem is something that should not be so.
type Problem struct {
	Kind     ProblemKind   `json:"kind"`
	Path     string        `json:"path"`             // in the store's directory
	Digest   digest.Digest `json:"digest,omitempty"` // of the object concerned, if any
	Detail   string        `json:"detail"`
	Repaired bool          `json:"repaired"`
}

// ProblemKind is what is wrong.
type ProblemKind string

const (
	Corrupt    ProblemKind = "corrupt"    // an object's bytes are not those of its digest
	Unreadable ProblemKind = "unreadable" // an object cannot be read
	Stranger   ProblemKind = "stranger"   // not a file of the store, or not where it belongs
	BadFill    ProblemKind = "fill"       // an interrupted download that cannot be continued
	BadIndex   ProblemKind = "index"      // meta.db is damaged: without it content is linked anew by one question upstream
	BadRow     ProblemKind = "row"        // a row of meta.db makes no sense
	Missing    ProblemKind = "missing"    // meta.db knows an object that is not there: lost, or being evicted when the process was killed
	Dangling   ProblemKind = "dangling"   // somebody may read an object that is not there
)

// CheckReport counts what Check looked at and found.
type CheckReport struct {
	Objects  int64 `json:"objects"`  // complete ones, all of whose bytes were read
	Bytes    int64 `json:"bytes"`    // of these
	Fills    int64 `json:"fills"`    // interrupted downloads. Their bytes are verified when they are complete
	Links    int64 `json:"links"`    // rights to read an object in a repository
	Tags     int64 `json:"tags"`     // last known answers
	Leftover int64 `json:"leftover"` // files that a crash left, and that the next start puts in order
	Problems int64 `json:"problems"`
	Repaired int64 `json:"repaired"` // of these
}

// Check verifies a store that no process uses: the bytes of every object, every row of its metadata, and that both agree.
// It keeps other processes from using the store until it returns. Without Repair it changes nothing. With Repair nothing is
// lost but what is bad.
//
// It needs little memory, however many objects there are: one directory's names, a few bytes for every page of meta.db, and
// what was found to be bad. An error says that not everything could be checked; problems are no error. ctx bounds all of it.
func Check(ctx context.Context, o CheckOptions) (CheckReport, error) {
	return newChecker(o).check(ctx)
}

type checker struct {
	CheckOptions
	layout
	db      *bbolt.DB // nil: there is no index, or it is damaged
	limiter *rate.Limiter
	buffers sync.Pool // of *[]byte, chunk long
	open    func(path string) (fs.File, error)

	mu          sync.Mutex
	report      CheckReport
	bad         map[digest.Digest]bool // objects that have been reported
	done, total int64                  // bytes
}

func newChecker(o CheckOptions) *checker {
	if o.Concurrency <= 0 {
		o.Concurrency = runtime.GOMAXPROCS(0)
	}
	limit := rate.Inf
	if o.BytesPerSecond > 0 {
		limit = rate.Limit(o.BytesPerSecond)
	}
	return &checker{CheckOptions: o, layout: layout{o.Path}, limiter: rate.NewLimiter(limit, chunk),
		bad: make(map[digest.Digest]bool), open: func(path string) (fs.File, error) { return os.Open(path) },
		buffers: sync.Pool{New: func() any { b := make([]byte, chunk); return &b }}}
}

func (c *checker) check(ctx context.Context) (CheckReport, error) {
	err := c.run(ctx)
	if err != nil {
		err = fmt.Errorf("check store %s: %w", c.root, err)
	}
	return c.report, err
}

func (c *checker) run(ctx context.Context) (err error) {
	if _, err := os.Stat(filepath.Join(c.root, "blobs")); err != nil {
		return err
	}
	if err := c.openIndex(); err != nil {
		return err
	}
	defer func() {
		if c.db != nil {
			err = errors.Join(err, c.db.Close())
		}
	}()
	for _, step := range []func(context.Context) error{c.checkObjects, c.checkFills, c.checkRows} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// found reports a problem, which repair mends.
func (c *checker) found(p Problem, repair func() error) {
	p.Path = c.relative(p.Path)
	if c.Repair {
		if err := repair(); err != nil {
			p.Detail += "; repair: " + err.Error()
		} else {
			p.Repaired = true
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Problems++
	if p.Repaired {
		c.report.Repaired++
	}
	if p.Kind == Corrupt || p.Kind == Unreadable {
		c.bad[p.Digest] = true
	}
	if c.Problem != nil {
		c.Problem(p)
	}
}

func (c *checker) relative(path string) string {
	if rel, err := filepath.Rel(c.root, path); err == nil {
		return rel
	}
	return path
}

// read notes n more bytes of content.
func (c *checker) read(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done += n
	c.total = max(c.total, c.done)
	if c.Progress != nil {
		c.Progress(c.done, c.total)
	}
}
