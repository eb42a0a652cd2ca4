package events_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// sent is a queue that messages are sent to.
type sent struct {
	bodies []string
	err    error
}

func (s *sent) SendMessage(_ context.Context, in *sqs.SendMessageInput, _ ...func(*sqs.Options)) (*sqs.SendMessageOutput, error) {
	s.bodies = append(s.bodies, aws.ToString(in.QueueUrl)+" "+aws.ToString(in.MessageBody))
	return &sqs.SendMessageOutput{}, s.err
}

// What one mirror sends is what another reads, and nothing else is sent.
func TestMissesAreSent(t *testing.T) {
	miss := registry.Change{Registry: "registry.example.com:5000", Repo: "team/app", Tag: "v1", Digest: dgst, At: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)}
	with := func(f func(*registry.Change)) registry.Change { c := miss; f(&c); return c }
	for name, tc := range map[string]struct {
		miss registry.Change
		ok   bool
	}{
		"a tag":         {miss, true},
		"a digest":      {with(func(c *registry.Change) { c.Tag = "" }), true},
		"no digest":     {with(func(c *registry.Change) { c.Digest = "" }), false},
		"no time":       {with(func(c *registry.Change) { c.At = time.Time{} }), false},
		"no registry":   {with(func(c *registry.Change) { c.Registry = "" }), false},
		"a path":        {with(func(c *registry.Change) { c.Registry = "a/b" }), false},
		"a long name":   {with(func(c *registry.Change) { c.Registry = strings.Repeat("a", 256) }), false},
		"no repository": {with(func(c *registry.Change) { c.Repo = "A" }), false},
		"no tag":        {with(func(c *registry.Change) { c.Tag = "-" }), false},
	} {
		t.Run(name, func(t *testing.T) {
			q := new(sent)
			err := events.SendMiss(t.Context(), q, "https://queue", tc.miss)
			if !tc.ok {
				if registry.ClassOf(err) != registry.Invalid || len(q.bodies) != 0 {
					t.Fatalf("error %v after %q", err, q.bodies)
				}
				return
			}
			if err != nil || len(q.bodies) != 1 {
				t.Fatalf("error %v after %q", err, q.bodies)
			}
			body, ok := strings.CutPrefix(q.bodies[0], "https://queue ")
			got, err := events.Decode([]byte(body))
			if d := cmp.Diff([]registry.Change{tc.miss}, got); err != nil || !ok || d != "" {
				t.Errorf("error %v (-want +got):\n%s", err, d)
			}
		})
	}
	q := &sent{err: errors.New("AccessDenied: for now")}
	if err := events.SendMiss(t.Context(), q, "https://queue", miss); registry.ClassOf(err) != registry.Unavailable || !strings.Contains(err.Error(), "for now") {
		t.Errorf("%v", err)
	}
	if err := events.Probe(t.Context(), q, "https://queue"); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("%v", err)
	}
}
