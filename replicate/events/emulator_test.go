package events_test

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// A push arrives as a change through EventBridge's forms and the real SDK; the queue is empty afterwards.
func TestPushArrives(t *testing.T) {
	const account, region = "111122223333", "us-west-2"
	forms := map[string]func(ecrtest.Event) string{"raw": ecrtest.Event.Raw, "SNS": ecrtest.Event.SNS, "CloudTrail": ecrtest.Event.CloudTrail}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			emu, err := ecrtest.New(ecrtest.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer emu.Close()
			if err := emu.Start(ecrtest.Listen{}); err != nil {
				t.Fatal(err)
			}
			tr := &http.Transport{}
			defer tr.CloseIdleConnections()
			cfg := emu.Config(account, region)
			cfg.HTTPClient = &http.Client{Transport: tr}
			cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
			host := emu.Registry(account, region).Host()
			r, err := ecr.New(t.Context(), ecr.Options{Host: host, Endpoint: emu.ControlURL(), AWS: &cfg})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery { // twice, as may happen
				return []ecrtest.Delivery{{Body: form(ev)}, {Body: form(ev)}}
			})
			emu.Subscribe(account, region, "events")
			img := registrytest.Image(1, 10)
			registrytest.Push(t, r, "team/app", "v1", img)

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			var mu sync.Mutex
			var got []registry.Change
			s := events.NewSQS(events.Options{Client: sqs.NewFromConfig(cfg), QueueURL: emu.QueueURL(account, region, "events"),
				Handle: func(_ context.Context, c []registry.Change) error {
					mu.Lock()
					defer mu.Unlock()
					if got = append(got, c...); len(got) == 2 {
						cancel()
					}
					return nil
				}})
			if err := s.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if len(got) != 2 || slices.ContainsFunc(got, func(c registry.Change) bool {
				return c.Registry != host || c.Repo != "team/app" || c.Tag != "v1" || c.Digest != img.Desc.Digest || c.Op != registry.Push || time.Since(c.At).Abs() > time.Minute
			}) {
				t.Errorf("got %+v", got)
			}
			if all, _ := emu.QueueLen(account, region, "events"); all != 0 {
				t.Errorf("%d messages left in the queue", all)
			}
		})
	}
}
