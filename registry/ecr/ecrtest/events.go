package ecrtest

import (
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
)

// Event is an EventBridge event of ECR. Its JSON is what an SQS target receives.
type Event struct {
	Version    string   `json:"version"`
	ID         string   `json:"id"`
	DetailType string   `json:"detail-type"`
	Source     string   `json:"source"`
	Account    string   `json:"account"`
	Time       string   `json:"time"` // RFC 3339, whole seconds, UTC
	Region     string   `json:"region"`
	Resources  []string `json:"resources"` // empty for image actions
	Detail     Detail   `json:"detail"`
}

// Detail is an image action. The tag is "" for pushes by digest alone (samples of 2023 and 2025 in public repositories).
type Detail struct {
	Result       string        `json:"result"`
	Repository   string        `json:"repository-name"`
	Digest       digest.Digest `json:"image-digest"`
	Action       string        `json:"action-type"` // PUSH or DELETE
	Tag          string        `json:"image-tag"`
	MediaType    string        `json:"manifest-media-type,omitempty"`
	ArtifactType string        `json:"artifact-media-type,omitempty"`
}

// Raw is the event as EventBridge puts it into an SQS queue.
func (ev Event) Raw() string { return encode(ev) }

// SNS is the event within an SNS notification, as a queue receives it through a topic without raw delivery.
func (ev Event) SNS() string {
	topic := "arn:aws:sns:" + ev.Region + ":" + ev.Account + ":ecr"
	return encode(map[string]string{"Type": "Notification", "MessageId": uuid(), "TopicArn": topic, "Message": ev.Raw(), "Timestamp": ev.Time,
		"SignatureVersion": "1", "Signature": "", "SigningCertURL": "", "UnsubscribeURL": ""})
}

// CloudTrail is the push as "AWS API Call via CloudTrail" reports it.
func (ev Event) CloudTrail() string {
	id := map[string]any{"imageDigest": ev.Detail.Digest, "imageTag": ev.Detail.Tag}
	return encode(map[string]any{"version": "0", "id": ev.ID, "detail-type": "AWS API Call via CloudTrail", "source": "aws.ecr", "account": ev.Account,
		"time": ev.Time, "region": ev.Region, "resources": []string{}, "detail": map[string]any{
			"eventSource": "ecr.amazonaws.com", "eventName": "PutImage", "awsRegion": ev.Region, "eventTime": ev.Time,
			"requestParameters": map[string]any{"repositoryName": ev.Detail.Repository, "imageTag": ev.Detail.Tag, "registryId": ev.Account},
			"responseElements": map[string]any{"image": map[string]any{"registryId": ev.Account, "repositoryName": ev.Detail.Repository,
				"imageId": id, "imageManifestMediaType": ev.Detail.MediaType}},
		}})
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // unreachable: strings all the way down
	}
	return string(b)
}

// Delivery is a message to put into the subscribed queues, and how long it takes to get there.
type Delivery struct {
	Body  string
	Delay time.Duration
}

// Subscribe makes events of a registry go to the queue of that name in the same account and region, which is created when it
// is new. It returns nothing to undo: a queue that nobody reads does no harm.
func (e *Emulator) Subscribe(account, region, queueName string) {
	r := e.Registry(account, region)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queueLocked(queueID{r.place, queueName})
	e.subs[r.place] = append(e.subs[r.place], queueName)
}

// OnEvent installs hook, which decides what becomes of an event: nothing (ECR's events are best effort), one message, or
// several, each raw, wrapped or late. A nil hook restores the default, one raw message at once. The hook must not call the
// Emulator.
func (e *Emulator) OnEvent(hook func(Event) []Delivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onEvent = hook
}

// publish sends the event of an image action: one per PutImage that changed something, and one per deleted tag. Manifests
// with a subject have a type of their own. The caller holds r.mu.
func (r *Registry) publish(p *repository, action string, d digest.Digest, tag string, img *image) {
	ev := Event{Version: "0", ID: uuid(), DetailType: "ECR Image Action", Source: "aws.ecr", Account: r.Account, Region: r.Region,
		Time: r.emu.now().UTC().Format("2006-01-02T15:04:05Z"), Resources: []string{},
		Detail: Detail{"SUCCESS", p.Name, d, action, tag, img.MediaType, img.ArtifactType}}
	if img.Subject != "" {
		ev.DetailType = "ECR Referrer Action"
	}
	e := r.emu
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.subs[r.place]) == 0 {
		return
	}
	out := []Delivery{{Body: ev.Raw()}}
	if e.onEvent != nil {
		out = e.onEvent(ev)
	}
	for _, name := range e.subs[r.place] {
		q := e.queueLocked(queueID{r.place, name})
		for _, o := range out {
			q.send(o.Body, o.Delay)
		}
	}
}
