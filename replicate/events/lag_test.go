package events_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// instant is a queue that gives messages the moment they are sent. It forgets what it gave.
type instant struct{ messages chan string }

func (q instant) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	out := &sqs.ReceiveMessageOutput{}
	var wait <-chan time.Time = time.After(time.Duration(in.WaitTimeSeconds) * time.Second)
	for len(out.Messages) < int(in.MaxNumberOfMessages) {
		select {
		case m := <-q.messages:
			out.Messages = append(out.Messages, types.Message{Body: &m, ReceiptHandle: aws.String("r")})
			continue
		default:
		}
		if len(out.Messages) > 0 {
			break
		}
		select {
		case m := <-q.messages:
			out.Messages = append(out.Messages, types.Message{Body: &m, ReceiptHandle: aws.String("r")})
		case <-wait:
			return out, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return out, nil
}

func (q instant) DeleteMessageBatch(context.Context, *sqs.DeleteMessageBatchInput, ...func(*sqs.Options)) (*sqs.DeleteMessageBatchOutput, error) {
	return &sqs.DeleteMessageBatchOutput{}, nil
}

func (q instant) ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	return &sqs.ChangeMessageVisibilityOutput{}, nil
}

// From a push to its being pullable it takes the transfer and next to nothing else: nobody sleeps between event, queue, worker
// and registry. The clock is synctest's, so the waits are exact and the machine's own speed does not count.
func TestLag(t *testing.T) {
	const images, transfer = 200, 2 * time.Second
	for _, shared := range []bool{false, true} {
		t.Run(fmt.Sprintf("shared=%v", shared), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, dst := mem.New(), mem.New()
				from := registrytest.NewFaulty(src)
				from.Before = func(c registrytest.Call) error {
					if c.Op == "open" && c.Object.Kind == registry.Blob {
						time.Sleep(transfer)
					}
					return nil
				}
				q, err := replicate.OpenQueue(filepath.Join(t.TempDir(), "queue.db"))
				if err != nil {
					t.Fatal(err)
				}
				defer q.Close()
				var mu sync.Mutex
				pushed := map[string]time.Time{}
				var waits []time.Duration // beyond the transfer
				to := registrytest.NewFaulty(dst)
				to.After = func(c registrytest.Call) error {
					if c.Op == "put-manifest" && c.Tag != "" {
						mu.Lock()
						waits = append(waits, time.Since(pushed[c.Tag])-transfer)
						mu.Unlock()
					}
					return nil
				}
				w := replicate.NewWorkers(replicate.Options{Queue: q, Mirrors: map[string]replicate.Mirror{"m": {Source: from, Tags: from,
					Destinations: map[string]replicate.Destination{"d": {Writer: to, Reader: to}}}}})
				o := events.Options{Client: instant{make(chan string, 10)}}
				o.Handle = func(ctx context.Context, changes []registry.Change) error {
					j, ok := replicate.FromChange("m", "d", changes[0])
					if !ok {
						t.Errorf("no job for %+v", changes)
					}
					j.Lent = shared
					if err := q.Put(ctx, j); err != nil || !shared {
						return err
					}
					return q.Settle(ctx, j.Key)
				}
				if shared {
					o.Shared = &events.Shared{Stalled: func() int { return q.Stalled("m") }}
				}
				s := events.NewSQS(o)
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for _, run := range []func(context.Context) error{w.Run, s.Run} {
					wg.Go(func() {
						if err := run(ctx); err != nil {
							t.Error(err)
						}
					})
				}
				random := rand.New(rand.NewPCG(1, 2))
				template := string(sample(t, "push"))
				for i := range images { // 1.25 a second on average, of the 2 that four workers can do
					img := registrytest.Image(uint64(i), 100)
					registrytest.Push(t, src, "my-repo", fmt.Sprint(i), img)
					mu.Lock()
					pushed[fmt.Sprint(i)] = time.Now()
					mu.Unlock()
					body := strings.NewReplacer(`"latest"`, fmt.Sprintf(`"%d"`, i), "sha256:7786d6f9f2e5e0e6d5b1a0f5f4d5e1c5a8c4f2f1e9d8c7b6a5f4e3d2c1b0a998",
						img.Desc.Digest.String()).Replace(template)
					for range 1 + i%10/9 { // a tenth comes twice
						o.Client.(instant).messages <- body
					}
					time.Sleep(400*time.Millisecond + time.Duration(random.Int64N(int64(800*time.Millisecond))))
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				cancel()
				wg.Wait()
				slices.Sort(waits)
				if len(waits) != images {
					t.Fatalf("%d images arrived", len(waits))
				}
				median, p99 := waits[images/2], waits[images*99/100]
				t.Logf("beyond the transfer: median %v, p99 %v, most %v", median, p99, waits[images-1])
				if median != 0 || p99 > time.Second {
					t.Errorf("median %v, p99 %v beyond the transfer, want none and at most 1s", median, p99)
				}
			})
		})
	}
}
