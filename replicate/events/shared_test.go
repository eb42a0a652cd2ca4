package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// pushes are messages of pushes to tags 0, 1, ….
func pushes(t *testing.T, n int) (bodies [][]byte) {
	for i := range n {
		bodies = append(bodies, []byte(strings.Replace(string(sample(t, "push")), `"latest"`, fmt.Sprintf(`"%d"`, i), 1)))
	}
	return bodies
}

// A message whose work takes long is nobody else's meanwhile, and deleted when the work is done, not before.
func TestSharedHidesWhileItWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(pushes(t, 1)...)
		var mu sync.Mutex
		var began []time.Duration
		start := time.Now()
		replica := func() *events.SQS {
			return events.NewSQS(events.Options{Client: q, Shared: &events.Shared{}, Handle: func(context.Context, []registry.Change) error {
				mu.Lock()
				began = append(began, time.Since(start))
				mu.Unlock()
				time.Sleep(time.Hour)
				if q.left() != 1 {
					t.Error("deleted before it was done")
				}
				return nil
			}})
		}
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { run(t, replica(), 2*time.Hour) })
		}
		wg.Wait()
		if len(began) != 1 || q.left() != 0 {
			t.Errorf("began at %v, %d messages left", began, q.left())
		}
		if n := q.n["hide"]; n < 170 || n > 181 {
			t.Errorf("hidden %d times in an hour, want one per 20 s", n)
		}
	})
}

// cut is a client whose network goes away.
type cut struct {
	*queue
	mu   sync.Mutex
	gone bool
}

func (c *cut) cut() { c.mu.Lock(); c.gone = true; c.mu.Unlock() }

func (c *cut) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone {
		return errors.New("network is unreachable")
	}
	return nil
}

func (c *cut) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, o ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.queue.ReceiveMessage(ctx, in, o...)
}

func (c *cut) ChangeMessageVisibility(ctx context.Context, in *sqs.ChangeMessageVisibilityInput, o ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.queue.ChangeMessageVisibility(ctx, in, o...)
}

func (c *cut) DeleteMessageBatch(ctx context.Context, in *sqs.DeleteMessageBatchInput, o ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	if err := c.err(); err != nil {
		return nil, err
	}
	return c.queue.DeleteMessageBatch(ctx, in, o...)
}

// A replica that vanishes in the middle of its work loses nothing: another has its messages within a minute. One that stops
// hands them over at once.
func TestSharedReplicaGoes(t *testing.T) {
	for name, tc := range map[string]struct {
		kill bool
		most time.Duration
	}{"killed": {true, time.Minute}, "stopped": {false, time.Second}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(pushes(t, 5)...)
				first, stop := context.WithCancel(t.Context())
				defer stop()
				net := &cut{queue: q}
				a := events.NewSQS(events.Options{Client: net, Shared: &events.Shared{},
					Handle: func(ctx context.Context, _ []registry.Change) error { <-ctx.Done(); return ctx.Err() }})
				ended := make(chan error, 1)
				go func() { ended <- a.Run(first) }()
				time.Sleep(10 * time.Minute)
				var mu sync.Mutex
				done := map[string]int{}
				var last time.Duration
				var gone time.Time
				b := events.NewSQS(events.Options{Client: q, Shared: &events.Shared{}, Handle: func(_ context.Context, c []registry.Change) error {
					mu.Lock()
					defer mu.Unlock()
					done[c[0].Tag]++
					last = time.Since(gone)
					return nil
				}})
				second, stopB := context.WithCancel(t.Context())
				endedB := make(chan error, 1)
				go func() { endedB <- b.Run(second) }()
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if len(done) != 0 {
					t.Errorf("taken from a replica that works on it: %v", done)
				}
				mu.Lock()
				gone = time.Now()
				mu.Unlock()
				if tc.kill {
					net.cut()
				} else {
					stop()
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if d := cmp.Diff(map[string]int{"0": 1, "1": 1, "2": 1, "3": 1, "4": 1}, done); d != "" || q.left() != 0 {
					t.Errorf("done by the other (-want +got):\n%s%d left", d, q.left())
				}
				if last > tc.most+time.Second {
					t.Errorf("handed over after %v", last)
				}
				stop()
				stopB()
				if err := errors.Join(<-ended, <-endedB); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A replica takes what it can work on and leaves the rest to the others; what stalls does not count.
func TestSharedHoldsWhatItCanDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(pushes(t, 20)...)
		var mu sync.Mutex
		held, stalled, most := 0, 0, 0
		release := make(chan struct{})
		s := events.NewSQS(events.Options{Client: q,
			Shared: &events.Shared{Hold: 3, Stalled: func() int { mu.Lock(); defer mu.Unlock(); return stalled }},
			Handle: func(context.Context, []registry.Change) error {
				mu.Lock()
				held++
				most = max(most, held)
				mu.Unlock()
				<-release
				mu.Lock()
				held--
				mu.Unlock()
				return nil
			}})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		if held != 3 {
			t.Errorf("holds %d, want 3", held)
		}
		mu.Lock()
		stalled = 2
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if held != 5 {
			t.Errorf("holds %d while two stall, want 5", held)
		}
		mu.Lock()
		stalled = 0
		mu.Unlock()
		for range 20 {
			release <- struct{}{}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if q.left() != 0 || most != 5 {
			t.Errorf("%d left, at most %d at a time", q.left(), most)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A message that could not be hidden, or whose deletion failed, is at worst worked on twice.
func TestSharedFaults(t *testing.T) {
	for _, call := range []string{"hide", "delete"} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/applied=%v", call, applied), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					q := newQueue(pushes(t, 1)...)
					q.fail = func(c string, n int) (bool, error) {
						if c == call && (c == "hide" || n == 1) {
							return applied, errors.New("connection reset")
						}
						return true, nil
					}
					var mu sync.Mutex
					handled := 0
					s := events.NewSQS(events.Options{Client: q, Shared: &events.Shared{}, Handle: func(context.Context, []registry.Change) error {
						mu.Lock()
						handled++
						mu.Unlock()
						time.Sleep(90 * time.Second)
						return nil
					}})
					run(t, s, 10*time.Minute)
					want := 2
					if applied {
						want = 1
					}
					if handled != want || q.left() != 0 {
						t.Errorf("handled %d times, want %d; %d left", handled, want, q.left())
					}
					if counted(t, s, "ecr_mirror_event_queue_errors_total")[call] == 0 {
						t.Error("not counted")
					}
				})
			})
		}
	}
}

// What is malformed does not go round: a dead letter is done.
func TestSharedDeadLetter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue([]byte("{"))
		dead := 0
		s := events.NewSQS(events.Options{Client: q, Shared: &events.Shared{}, QueueURL: "https://queue",
			DeadLetter: func(context.Context, []byte, error) error { dead++; return nil }})
		run(t, s, 5*time.Minute)
		if dead != 1 || q.left() != 0 {
			t.Errorf("%d dead letters, %d left", dead, q.left())
		}
	})
}
