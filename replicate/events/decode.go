// Package events turns what registries say about themselves into changes (registry.Change), and receives it: from an SQS
// queue, or as an HTTP endpoint (Webhook) for EventBridge API destinations and for Distribution's notifications.
//
// Events are hints: ECR emits them best effort, they are repeated and reordered, and whoever may write to the queue can
// forge them. So every field is validated here, and a change only ever causes the registry to be asked. What cannot become
// a change is a dead letter: kept, counted, and acknowledged, for the same bytes would fail again.
//
// Limitations: replication, scan and pull-through-cache events of ECR are recognized and ignored; CloudTrail is read for
// PutImage and BatchDeleteImage alone; an SNS signature is not verified (the queue's policy says who may send).
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// MaxSize is the largest message in bytes that Decode reads: what SQS delivers at most.
const MaxSize = 1 << 20

// What Decode can say against a message. All are of class registry.Invalid: the same bytes never become a change.
var (
	// ErrIgnored is an event of ECR that is known to change no image: a scan, a failed push, native replication.
	ErrIgnored error = &reason{"ignored"}
	// ErrUnwanted is of an image that nobody wants to hear of. Decode does not know; Handle says so.
	ErrUnwanted error = &reason{"unwanted"}
	// ErrUnknown is well-formed but nothing that this package knows.
	ErrUnknown error = &reason{"unknown"}
	// ErrForeign is of a registry that is not the one this is set up for. Decode does not know; Handle says so.
	ErrForeign error = &reason{"foreign"}
	// ErrMalformed is not JSON, too large, or has a field that cannot be what it should be.
	ErrMalformed error = &reason{"malformed"}
)

type reason struct{ name string }

func (r *reason) Error() string { return r.name + " event" }
func (r *reason) Unwrap() error { return registry.Invalid }

// Decode reads one message: an EventBridge event of ECR ("ECR Image Action", "ECR Referrer Action") or of CloudTrail
// (PutImage, BatchDeleteImage), as it is or in an SNS envelope, an envelope of Distribution's notifications, or what another mirror
// missed (EncodeMiss). The sources of the formats:
// Amazon EventBridge events reference, "Amazon ECR events"; Amazon ECR User Guide, "EventBridge"; Amazon SNS guide, "Parsing
// message formats"; Distribution, package notifications. An error is ErrIgnored, ErrUnknown or ErrMalformed; without one
// there is at least one change. Of several notifications in one envelope the changes of those that are
// good are returned beside the error of another.
func Decode(body []byte) ([]registry.Change, error) {
	return decode(body, true)
}

type event struct {
	// of an SNS envelope
	Type    string `json:"Type"`
	Message string `json:"Message"`
	// of EventBridge
	Source     string          `json:"source"`
	DetailType string          `json:"detail-type"`
	Account    string          `json:"account"`
	Region     string          `json:"region"`
	Time       time.Time       `json:"time"`
	Detail     json.RawMessage `json:"detail"`
	// of Distribution
	Events []json.RawMessage `json:"events"`
}

func decode(body []byte, envelope bool) ([]registry.Change, error) {
	if len(body) > MaxSize {
		return nil, fmt.Errorf("%d bytes, more than %d: %w", len(body), MaxSize, ErrMalformed)
	}
	var e event
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if e.Source == "" && len(e.Events) > 0 {
		return notifications(e.Events)
	}
	if e.Source == "" && e.Type != "" {
		if e.Type == "Notification" && e.Message != "" && envelope {
			return decode([]byte(e.Message), false)
		}
		return nil, fmt.Errorf("SNS %.100q: %w", e.Type, ErrUnknown)
	}
	switch e.DetailType {
	case "ECR Image Action", "ECR Referrer Action":
		if e.Source == "aws.ecr" {
			return e.image()
		}
	case missType:
		if e.Source == missSource {
			return e.miss()
		}
	case "AWS API Call via CloudTrail":
		return e.cloudTrail()
	case "ECR Image Scan", "ECR Scan Resource Change", "ECR Replication Action", "ECR Pull Through Cache Action", "ECR Artifact Action", probeType:
		return nil, fmt.Errorf("%s: %w", e.DetailType, ErrIgnored)
	}
	return nil, fmt.Errorf("source %.100q, detail-type %.100q: %w", e.Source, e.DetailType, ErrUnknown)
}

// image reads an event about one image. Both types have the same fields. The tag of an image that was pushed by digest is
// "", or missing.
func (e event) image() ([]registry.Change, error) {
	var d struct {
		Result string `json:"result"`
		Action string `json:"action-type"`
		Repo   string `json:"repository-name"`
		Digest string `json:"image-digest"`
		Tag    string `json:"image-tag"`
	}
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return nil, fmt.Errorf("detail: %w: %w", ErrMalformed, err)
	}
	if d.Result != "SUCCESS" {
		return nil, fmt.Errorf("result %.100q: %w", d.Result, ErrIgnored)
	}
	var op registry.Op
	switch d.Action {
	case "PUSH":
		op = registry.Push
	case "DELETE":
		op = registry.Delete
	case "UPDATE_STORAGE_CLASS", "ACTIVATE", "ARCHIVE":
		return nil, fmt.Errorf("action-type %s: %w", d.Action, ErrIgnored)
	default:
		return nil, fmt.Errorf("action-type %.100q: %w", d.Action, ErrUnknown)
	}
	return e.change(op, e.Account, d.Repo, d.Tag, d.Digest)
}

// cloudTrail reads a PutImage or BatchDeleteImage that CloudTrail recorded. It also records calls that failed. The registry is
// the one the call was made to, which is not the event's account when another account pushed. Only here is it known that
// somebody deleted: what a lifecycle policy removes has a CloudTrail event of another name.
func (e event) cloudTrail() ([]registry.Change, error) {
	var d struct {
		Source string `json:"eventSource"`
		Name   string `json:"eventName"`
		Error  string `json:"errorCode"`
		Region string `json:"awsRegion"`
		In     struct {
			Registry string `json:"registryId"`
			Repo     string `json:"repositoryName"`
		} `json:"requestParameters"`
		Out struct {
			Image struct {
				Registry string `json:"registryId"`
				ID       struct {
					Digest string `json:"imageDigest"`
					Tag    string `json:"imageTag"`
				} `json:"imageId"`
			} `json:"image"`
			Gone []struct { // one for each tag that the image had
				Digest string `json:"imageDigest"`
			} `json:"imageIds"`
		} `json:"responseElements"`
	}
	if err := json.Unmarshal(e.Detail, &d); err != nil {
		return nil, fmt.Errorf("detail: %w: %w", ErrMalformed, err)
	}
	switch {
	case d.Source != "ecr.amazonaws.com":
		return nil, fmt.Errorf("CloudTrail of %.100q: %w", d.Source, ErrUnknown)
	case d.Name != "PutImage" && d.Name != "BatchDeleteImage":
		return nil, fmt.Errorf("CloudTrail %.100q: %w", d.Name, ErrIgnored)
	case d.Error != "":
		return nil, fmt.Errorf("CloudTrail %s that failed with %.100q: %w", d.Name, d.Error, ErrIgnored)
	}
	if d.Region != "" {
		e.Region = d.Region
	}
	account := e.Account
	for _, a := range []string{d.In.Registry, d.Out.Image.Registry} {
		if a != "" {
			account = a
		}
	}
	if d.Name == "PutImage" {
		return e.change(registry.Push, account, d.In.Repo, d.Out.Image.ID.Tag, d.Out.Image.ID.Digest)
	}
	var changes []registry.Change
	for i, id := range d.Out.Gone {
		if slices.Contains(d.Out.Gone[:i], id) {
			continue
		}
		c, err := e.change(registry.Delete, account, d.In.Repo, "", id.Digest)
		if err != nil {
			return nil, fmt.Errorf("imageIds[%d]: %w", i, err)
		}
		c[0].Explicit = true
		changes = append(changes, c...)
	}
	if len(changes) == 0 {
		return nil, fmt.Errorf("CloudTrail BatchDeleteImage that deleted nothing: %w", ErrIgnored)
	}
	return changes, nil
}

// change validates all that an event says.
func (e event) change(op registry.Op, account, repo, tag, dgst string) ([]registry.Change, error) {
	host, ok := hostOf(account, e.Region)
	if !ok {
		return nil, fmt.Errorf("account %.20q, region %.40q: %w", account, e.Region, ErrMalformed)
	}
	c, err := validated(registry.Change{Registry: host, Repo: repo, Tag: tag, Digest: digest.Digest(dgst), Op: op, At: e.Time})
	if err == nil && c.Digest == "" {
		err = fmt.Errorf("no digest: %w", ErrMalformed)
	}
	if err != nil {
		return nil, err
	}
	return []registry.Change{c}, nil
}

// validated returns c unless a part of it cannot be what it should be: ErrMalformed. Only a tag's deletion may lack a digest.
func validated(c registry.Change) (registry.Change, error) {
	if n, err := reference.WithName(c.Repo); err != nil || n.Name() != c.Repo || len(c.Repo) > 256 {
		return registry.Change{}, fmt.Errorf("repository %.300q: %w", c.Repo, ErrMalformed)
	}
	if loc := reference.TagRegexp.FindStringIndex(c.Tag); c.Tag != "" && (loc == nil || loc[0] != 0 || loc[1] != len(c.Tag)) {
		return registry.Change{}, fmt.Errorf("tag %.200q: %w", c.Tag, ErrMalformed)
	}
	untagged := c.Op == registry.Delete && c.Tag != "" && c.Digest == ""
	if err := c.Digest.Validate(); err != nil && !untagged {
		return registry.Change{}, fmt.Errorf("digest %.200q: %w", string(c.Digest), ErrMalformed)
	}
	if c.At.IsZero() {
		return registry.Change{}, fmt.Errorf("no time: %w", ErrMalformed)
	}
	c.At = c.At.UTC()
	return c, nil
}

// hostOf returns the host name of a registry: facts of the partitions as in the SDK's endpoint tables.
func hostOf(account, region string) (string, bool) {
	digits := strings.IndexFunc(account, func(r rune) bool { return r < '0' || r > '9' }) < 0
	letters := strings.IndexFunc(region, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }) < 0
	if len(account) != 12 || !digits || region == "" || len(region) > 40 || !letters || region[0] == '-' {
		return "", false
	}
	return account + ".dkr.ecr." + region + "." + suffixOf(region), true
}

func suffixOf(region string) string {
	for _, p := range [...]struct{ prefix, suffix string }{
		{"cn-", "amazonaws.com.cn"},
		{"eusc-", "amazonaws.eu"},
		{"us-isob-", "sc2s.sgov.gov"},
		{"us-isof-", "csp.hci.ic.gov"},
		{"eu-isoe-", "cloud.adc-e.uk"},
		{"us-iso-", "c2s.ic.gov"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.suffix
		}
	}
	return "amazonaws.com" // us-gov- too
}

// reasonOf is the outcome's name for metrics.
func reasonOf(err error) string {
	var r *reason
	if errors.As(err, &r) {
		return r.name
	}
	return "malformed"
}
