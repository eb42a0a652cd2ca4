package events

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// A miss is the one event of our own: a mirror that may not write to destinations tells those who do of an image that a pull
// found at the source only. It has the outer form of an EventBridge event, and like all events it says names and nothing else:
// who forges one has a registry asked about them. Of another version than ours it is ErrUnknown, a dead letter that an upgrade can
// retry.
const (
	missSource  = "ecr-mirror"
	missType    = "ECR Mirror Miss"
	probeType   = "ECR Mirror Probe"
	missVersion = 1
)

type miss struct {
	Source     string     `json:"source"`
	DetailType string     `json:"detail-type"`
	Time       time.Time  `json:"time"`
	Detail     missDetail `json:"detail"`
}

type missDetail struct {
	Version  int           `json:"version"`
	Registry string        `json:"registry"` // host of the source
	Repo     string        `json:"repository"`
	Tag      string        `json:"tag,omitempty"`
	Digest   digest.Digest `json:"digest"`
}

// EncodeMiss returns the message that Decode reads as c, a push. What Decode would refuse is refused here: Invalid.
func EncodeMiss(c registry.Change) ([]byte, error) {
	b, err := json.Marshal(miss{missSource, missType, c.At, missDetail{missVersion, c.Registry, c.Repo, c.Tag, c.Digest}})
	if err != nil {
		return nil, registry.Errorf(registry.Invalid, "miss: %w", err)
	}
	if _, err := Decode(b); err != nil {
		return nil, fmt.Errorf("miss: %w", err)
	}
	return b, nil
}

// miss reads the event of another mirror.
func (e event) miss() ([]registry.Change, error) {
	var v struct{ Version int }
	if err := json.Unmarshal(e.Detail, &v); err != nil {
		return nil, fmt.Errorf("detail: %w: %w", ErrMalformed, err)
	}
	if v.Version != missVersion {
		return nil, fmt.Errorf("%s, version %d: %w", missType, v.Version, ErrUnknown)
	}
	var d missDetail
	strict := json.NewDecoder(bytes.NewReader(e.Detail))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&d); err != nil {
		return nil, fmt.Errorf("detail: %w: %w", ErrMalformed, err)
	}
	if len(d.Registry) > maxHost || !domain.MatchString(d.Registry) {
		return nil, fmt.Errorf("registry %.300q: %w", d.Registry, ErrMalformed)
	}
	c, err := validated(registry.Change{Registry: d.Registry, Repo: d.Repo, Tag: d.Tag, Digest: d.Digest, At: e.Time})
	if err != nil {
		return nil, err
	}
	return []registry.Change{c}, nil
}

// Sender is the part of an SQS client that sends; *sqs.Client has it. It needs sqs:SendMessage.
type Sender interface {
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

// sendTime bounds one attempt to send, the SDK's own repetitions included.
const sendTime = 15 * time.Second

// Probe finds out whether the queue takes messages, by one that everybody who decodes it ignores.
func Probe(ctx context.Context, to Sender, queueURL string) error {
	return send(ctx, to, queueURL, []byte(`{"source":"`+missSource+`","detail-type":"`+probeType+`"}`))
}

// SendMiss returns nil when the queue has c, durably. A queue that does not take it is Unavailable, whatever it says: it is
// repaired some time, and the message is as good then. A message that was sent although an error came back is there twice, which
// does no harm.
func SendMiss(ctx context.Context, to Sender, queueURL string, c registry.Change) error {
	body, err := EncodeMiss(c)
	if err != nil {
		return err
	}
	return send(ctx, to, queueURL, body)
}

func send(ctx context.Context, to Sender, queueURL string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	if _, err := to.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &queueURL, MessageBody: aws.String(string(body))}); err != nil {
		return registry.Errorf(registry.Unavailable, "event queue: send: %w", err)
	}
	return nil
}
