package ecrtest

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
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

	noTag bool // leave an empty image-tag out
}

// Detail is that of all kinds of events together; each has some. The tag is "" for pushes by digest alone (samples of 2023
// and 2025 in public repositories).
type Detail struct {
	RuleVersion   string        `json:"rule-version,omitempty"` // of pull through cache actions
	SyncStatus    string        `json:"sync-status,omitempty"`
	CachePrefix   string        `json:"ecr-repository-prefix,omitempty"`
	Result        string        `json:"result,omitempty"` // SUCCESS or FAILED
	Repository    string        `json:"repository-name"`
	UpstreamURL   string        `json:"upstream-registry-url,omitempty"`
	Digest        digest.Digest `json:"image-digest"`
	SourceAccount string        `json:"source-account,omitempty"` // of replication actions
	Action        string        `json:"action-type,omitempty"`    // PUSH, DELETE, REPLICATE or UPDATE_STORAGE_CLASS
	SourceRegion  string        `json:"source-region,omitempty"`
	Tag           string        `json:"image-tag"`
	MediaType     string        `json:"manifest-media-type,omitempty"`
	ArtifactType  string        `json:"artifact-media-type,omitempty"`
	StorageClass  string        `json:"target-storage-class,omitempty"`
	ActivatedAt   string        `json:"last-activated-at,omitempty"`
	FailureCode   string        `json:"failure-code,omitempty"`
	FailureReason string        `json:"failure-reason,omitempty"`
}

// EventQuality is how good the way of events is: ECR's are best effort, and EventBridge delivers at least once. The zero value is the
// best: each once, at once. A queue gets them late by its messages' delay, an HTTP target by the wait before its call.
type EventQuality struct {
	Loss       float64       // the share that is never delivered, 0 to 1
	Duplicates float64       // the share that is delivered twice
	Delay      time.Duration // the longest delay; each delivery has its own, so that they overtake each other
}

// Raw is the event as EventBridge puts it into an SQS queue.
func (ev Event) Raw() string {
	if ev.noTag && ev.Detail.Tag == "" {
		return strings.Replace(encode(ev), `,"image-tag":""`, "", 1)
	}
	return encode(ev)
}

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

// Delivery is what a target is to receive, and how long it takes to get there.
type Delivery struct {
	Body  string
	Delay time.Duration
}

// Subscribe makes events of a registry go to the queue of that name in the same account and region, which is created when it
// is new, as a rule would that matches every event, and without the queue's policy. It returns nothing to undo: a queue that nobody
// reads does no harm.
func (e *Emulator) Subscribe(account, region, queueName string) {
	r := e.Registry(account, region)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.queueLocked(queueID{r.place, queueName})
	e.subs[r.place] = append(e.subs[r.place], queueName)
}

// OnEvent installs hook, which decides what becomes of an event: nothing (ECR's events are best effort), one message, or
// several, each raw, wrapped or late. A nil hook restores the default, which is Options.Events. The hook must not call the
// Emulator.
func (e *Emulator) OnEvent(hook func(Event) []Delivery) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onEvent = hook
}

// deliveries is what becomes of an event without a hook.
func (q EventQuality) deliveries(ev Event) []Delivery {
	var out []Delivery
	once := func() {
		d := Delivery{Body: ev.Raw()}
		if q.Delay > 0 {
			d.Delay = rand.N(q.Delay)
		}
		out = append(out, d)
	}
	if rand.Float64() >= q.Loss {
		once()
		if rand.Float64() < q.Duplicates {
			once()
		}
	}
	return out
}

// publish sends the event of an image action: one per PutImage that changed something, and one per deleted tag. Manifests
// with a subject have a type of their own. The caller holds r.mu.
func (r *Registry) publish(p *repository, action string, d digest.Digest, tag string, img *image) {
	kind := "ECR Image Action"
	if img.Subject != "" {
		kind = "ECR Referrer Action"
	}
	r.announce(kind, nil, Detail{Result: "SUCCESS", Repository: p.Name, Digest: d, Action: action, Tag: tag, MediaType: img.MediaType, ArtifactType: img.ArtifactType})
}

// publishClass announces that an image was archived or brought back.
func (r *Registry) publishClass(p *repository, d digest.Digest, class string) {
	img := p.Images[d]
	for _, tag := range append(p.tagsOf(d), "")[:max(1, len(p.tagsOf(d)))] {
		detail := Detail{Result: "SUCCESS", Repository: p.Name, Digest: d, Action: "UPDATE_STORAGE_CLASS", Tag: tag, MediaType: img.MediaType,
			ArtifactType: img.ArtifactType, StorageClass: class}
		if !img.ActivatedAt.IsZero() {
			detail.ActivatedAt = timestamp(img.ActivatedAt)
		}
		r.announce("ECR Image Action", nil, detail)
	}
}

// announceReplica announces at the destination what became of a replication.
func (r *Registry) announceReplica(src *Registry, name string, d digest.Digest, tag, code string) {
	result := "SUCCESS"
	if code != "" {
		result = "FAILED"
	}
	r.announce("ECR Replication Action", []string{r.repositoryARN(name)}, Detail{Result: result, Repository: name, Digest: d, SourceAccount: src.Account,
		Action: "REPLICATE", SourceRegion: src.Region, Tag: tag})
}

// announceImport announces what became of a pull through the cache.
func (r *Registry) announceImport(rule *cacheRule, name, tag string, d digest.Digest, err error) {
	detail := Detail{RuleVersion: "1", SyncStatus: "SUCCESS", CachePrefix: rule.Prefix, Repository: name, UpstreamURL: rule.URL, Digest: d, Tag: tag}
	if err != nil {
		detail.SyncStatus, detail.FailureCode, detail.FailureReason = "FAILED", registry.ClassOf(err).String(), "the upstream image could not be imported"
	}
	r.announce("ECR Pull Through Cache Action", []string{r.repositoryARN(name)}, detail)
}

func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (r *Registry) announce(kind string, resources []string, d Detail) {
	r.emu.deliver(r.place, Event{Version: "0", ID: uuid(), DetailType: kind, Source: "aws.ecr", Account: r.Account, Region: r.Region,
		Time: timestamp(r.emu.now()), Resources: append([]string{}, resources...), Detail: d, noTag: r.emu.opt.Quirks.NoImageTag})
}

// deliver sends an event to the subscribed queues and to the targets of the rules that match.
func (e *Emulator) deliver(at place, ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	hook := e.opt.Events.deliveries
	if e.onEvent != nil {
		hook = e.onEvent
	}
	targets := e.bus(at).targets(ev)
	if len(e.subs[at])+len(targets) == 0 {
		return
	}
	for _, o := range hook(ev) {
		for _, name := range e.subs[at] {
			e.queueLocked(queueID{at, name}).send(o.Body, o.Delay)
		}
		for _, t := range targets {
			t.send(e, o)
		}
	}
}
