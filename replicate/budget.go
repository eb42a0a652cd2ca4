package replicate

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Budget bounds what a mirror reads from its source in a day (UTC), whoever waits for it: what crosses regions is paid for.
// When it is spent, jobs of sweep and backfill wait for the next day; pulls and events go on, and a warning says so once. What
// is under way when it is spent is finished. nil is a budget without bounds.
type Budget struct {
	o BudgetOptions

	mu     sync.Mutex
	day    time.Time // its beginning
	used   int64
	saved  int64 // of used, what the file has
	warned bool
}

// BudgetOptions configure a Budget. Mirror, Bytes and Queue are required.
type BudgetOptions struct {
	Mirror string
	Bytes  int64            // a day
	Queue  *Queue           // remembers what was spent
	Logger *slog.Logger     // nil: none
	Now    func() time.Time // nil: time.Now
}

// The file: bucket "budgets" holds a storedBudget as JSON under the mirror's name. What may change: see jobsBucket.
const budgetsBucket = "budgets"

type storedBudget struct {
	Day  time.Time `json:"day"`
	Used int64     `json:"used"`
}

// saveEvery is how often the file learns what was spent, so that much is forgotten by a kill.
const saveEvery = 10 * time.Second

// NewBudget goes on with what the mirror spent today before.
func NewBudget(o BudgetOptions) (*Budget, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &Budget{o: o}
	err := o.Queue.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket([]byte(budgetsBucket)).Get([]byte(o.Mirror))
		if v == nil {
			return nil
		}
		var s storedBudget
		if err := json.Unmarshal(v, &s); err != nil {
			return registry.Errorf(registry.Internal, "stored budget of %s: %w", o.Mirror, err)
		}
		b.day, b.used, b.saved = s.Day, s.Used, s.Used
		return nil
	})
	return b, err
}

// today begins a new day if it is another one: an earlier one when the clock was wrong. The caller holds mu.
func (b *Budget) today() {
	if day := b.o.Now().UTC().Truncate(24 * time.Hour); !day.Equal(b.day) {
		b.day, b.used, b.saved, b.warned = day, 0, -1, false
	}
}

func (b *Budget) spend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.today()
	if b.used += n; b.used >= b.o.Bytes && !b.warned {
		b.warned = true
		b.o.Logger.Warn("today's byte budget is spent: sweeps and backfill wait, pulls and events go on", "mirror", b.o.Mirror,
			"budget", b.o.Bytes, "until", b.day.Add(24*time.Hour))
	}
}

// Spent reports whether jobs of the lane have to wait, and until when.
func (b *Budget) Spent(l registry.Lane) (until time.Time, spent bool) {
	if b == nil || l < registry.LaneSweep {
		return time.Time{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.today()
	return b.day.Add(24 * time.Hour), b.used >= b.o.Bytes
}

// Run writes down what was spent until ctx ends, and then once more. A file that cannot be written is in the log only.
func (b *Budget) Run(ctx context.Context) error {
	for goOn := true; goOn; {
		goOn = wait(ctx, saveEvery)
		if err := b.save(); err != nil {
			b.o.Logger.Error("what was spent of the byte budget is not written down", "mirror", b.o.Mirror, "error", err)
		}
	}
	return nil
}

func (b *Budget) save() error {
	b.mu.Lock()
	b.today()
	s, changed := storedBudget{b.day, b.used}, b.used != b.saved
	b.mu.Unlock()
	if !changed {
		return nil
	}
	v, err := json.Marshal(s)
	if err == nil {
		err = b.o.Queue.inFile(func(tx *bolt.Tx) error { return tx.Bucket([]byte(budgetsBucket)).Put([]byte(b.o.Mirror), v) })
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.day.Equal(s.Day) {
		b.saved = s.Used
	}
	return nil
}

// Collectors returns the metrics for the caller to register, once.
func (b *Budget) Collectors() []prometheus.Collector {
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: prometheus.Labels{"mirror": b.o.Mirror}}, f)
	}
	return []prometheus.Collector{
		gauge("ecr_mirror_source_budget_bytes", "Bytes that may be read from the source in a day (UTC).", func() float64 { return float64(b.o.Bytes) }),
		gauge("ecr_mirror_source_budget_used_bytes", "Bytes that were read from the source today (UTC).", func() float64 {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.today()
			return float64(b.used)
		}),
	}
}

// Reader is r with what is read of it counted.
func (b *Budget) Reader(r registry.Reader) registry.Reader {
	if b == nil {
		return r
	}
	return &spender{r, b}
}

type spender struct {
	registry.Reader
	budget *Budget
}

func (s *spender) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	c, err := s.Reader.Open(ctx, o, r)
	if err == nil {
		c.From = s // further ranges are counted, too
		c.ReadCloser = &spending{c.ReadCloser, s.budget}
	}
	return c, err
}

type spending struct {
	io.ReadCloser
	budget *Budget
}

func (s *spending) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if n > 0 {
		s.budget.spend(int64(n))
	}
	return n, err
}
