package ecrtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// bus is the default event bus of an account in a region. The emulator's lock is held around its use.
type bus struct {
	place
	rules        map[string]*eventRule
	destinations map[string]*apiDestination // by ARN
	connections  map[string]*connection     // by ARN
}

type eventRule struct {
	Name        string
	ARN         string `json:"Arn"`
	Bus         string `json:"EventBusName"`
	Pattern     string `json:"EventPattern"`
	State       string // ENABLED or DISABLED
	Description string `json:",omitempty"`
	targets     []*eventTarget
	tags        map[string]string
}

// eventTarget is an SQS queue or an API destination.
type eventTarget struct {
	ID    string `json:"Id"`
	ARN   string `json:"Arn"`
	Role  string `json:"RoleArn,omitempty"`
	Input struct {
		Headers map[string]string `json:"HeaderParameters,omitempty"`
	} `json:"HttpParameters,omitzero"`
	DeadLetters struct {
		ARN string `json:"Arn,omitempty"`
	} `json:"DeadLetterConfig,omitzero"`
	Retry struct {
		Attempts *int `json:"MaximumRetryAttempts,omitempty"`
		Age      int  `json:"MaximumEventAgeInSeconds,omitempty"`
	} `json:"RetryPolicy,omitzero"`

	rule *eventRule
}

// bus returns the bus at a place. The caller holds e.mu.
func (e *Emulator) bus(at place) *bus {
	b := e.buses[at]
	if b == nil {
		b = &bus{at, map[string]*eventRule{}, map[string]*apiDestination{}, map[string]*connection{}}
		e.buses[at] = b
	}
	return b
}

func (b *bus) arn(what string) string {
	return "arn:" + partition(b.Region) + ":events:" + b.Region + ":" + b.Account + ":" + what
}

// targets returns those of the rules that an event matches.
func (b *bus) targets(ev Event) []*eventTarget {
	var all []*eventTarget
	var doc any
	for _, r := range b.rules {
		if r.State != "ENABLED" || len(r.targets) == 0 {
			continue
		}
		if doc == nil {
			json.Unmarshal([]byte(ev.Raw()), &doc) // it was just written
		}
		if p, err := parsePattern(r.Pattern); err == nil && p.matches(doc) { // it was parsed when it was put
			all = append(all, r.targets...)
		}
	}
	return all
}

// send delivers to a target. A queue that does not let EventBridge send is not sent to: its policy has to name
// events.amazonaws.com (EventBridge User Guide, "Amazon SQS permissions"). The caller holds e.mu.
func (t *eventTarget) send(e *Emulator, d Delivery) {
	if id, ok := parseQueueARN(t.ARN); ok {
		q := e.queues[id]
		if q == nil {
			e.opt.Log.Warn("event not delivered: no such queue", "rule", t.rule.ARN, "target", t.ARN)
			return
		}
		policies, key := q.policies()
		if key != "" && !e.keyLets(key, t.rule.ARN) {
			e.opt.Log.Warn("event not delivered: events.amazonaws.com may not use the queue's key", "rule", t.rule.ARN, "key", key)
			t.dead(e, d.Body)
			return
		}
		if v := e.decide(iam.Request{ARN: "events.amazonaws.com", Action: "sqs:SendMessage", Resource: t.ARN, Owner: id.Account,
			Context: map[string]string{iam.SourceARN: t.rule.ARN}}, nil, policies); !v.Allowed {
			e.opt.Log.Warn("event not delivered: events.amazonaws.com may not send to the queue", "rule", t.rule.ARN, "target", t.ARN, "why", v.Why)
			t.dead(e, d.Body)
			return
		}
		q.send(d.Body, d.Delay)
		return
	}
	if a := e.bus(place{t.rule.account(), t.rule.region()}).destinations[t.ARN]; a != nil {
		c := *a
		e.running.Go(func() { c.deliver(e, t, d) })
	}
}

// keyLets reports whether a key's policy lets EventBridge encrypt with it; a key without a policy here does. The caller holds e.mu.
func (e *Emulator) keyLets(key, rule string) bool {
	policy, ok := e.keys[key]
	for _, action := range []string{"kms:GenerateDataKey", "kms:Decrypt"} {
		if ok && !e.decide(iam.Request{ARN: "events.amazonaws.com", Action: action, Resource: key, Context: map[string]string{iam.SourceARN: rule}}, nil, policy).Allowed {
			return false
		}
	}
	return true
}

// KeyPolicy gives a KMS key a policy, which is asked whether EventBridge and other accounts may use the key of a queue. Principals of the
// key's account need their own policies alone, as the policy that AWS gives a key by default says.
func (e *Emulator) KeyPolicy(key, policy string) error {
	d, err := iam.Parse(iam.Queue, []byte(policy))
	if err != nil {
		return fmt.Errorf("emulator: policy of %s: %w", key, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keys[key] = []iam.Document{d}
	return nil
}

// Rule is PutRule and PutTargets with one queue, whose policy has to let the rule send.
func (e *Emulator) Rule(account, region, name, eventPattern, queueARN string) error {
	at := e.Registry(account, region).place
	e.mu.Lock()
	defer e.mu.Unlock()
	b := e.bus(at)
	if _, err := busOp((*bus).putRule)(e, b, []byte(encode(map[string]string{"Name": name, "EventPattern": eventPattern}))); err != nil {
		return err
	}
	_, err := busOp((*bus).putTargets)(e, b, []byte(encode(map[string]any{"Rule": name, "Targets": []map[string]string{{"Id": "1", "Arn": queueARN}}})))
	return err
}

// dead puts what could not be delivered into the target's dead-letter queue. The caller holds e.mu.
func (t *eventTarget) dead(e *Emulator, body string) {
	if id, ok := parseQueueARN(t.DeadLetters.ARN); ok && e.queues[id] != nil {
		e.queues[id].send(body, 0)
	}
}

func (r *eventRule) region() string  { return strings.Split(r.ARN, ":")[3] }
func (r *eventRule) account() string { return strings.Split(r.ARN, ":")[4] }

// pattern is an event pattern: objects of patterns, down to lists of which one has to match.
type pattern map[string]any

// parsePattern reads a pattern and refuses what matches does not know.
func parsePattern(text string) (pattern, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	var p pattern
	if err := dec.Decode(&p); err != nil {
		return nil, err
	}
	return p, p.check()
}

func (p pattern) check() error {
	if len(p) == 0 {
		return errors.New("an empty object")
	}
	for key, v := range p {
		switch v := v.(type) {
		case map[string]any:
			if err := pattern(v).check(); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		case []any:
			if len(v) == 0 {
				return fmt.Errorf("%s: an empty list", key)
			}
			for _, one := range v {
				if op, ok := one.(map[string]any); ok && !knownOperator(op) {
					return fmt.Errorf("%s: unrecognized match type", key)
				}
			}
		default:
			return fmt.Errorf("%s: must be an object or an array", key)
		}
	}
	return nil
}

func knownOperator(op map[string]any) bool {
	for name := range op {
		return len(op) == 1 && slices.Contains([]string{"prefix", "suffix", "wildcard", "equals-ignore-case", "exists", "anything-but"}, name)
	}
	return false
}

func (p pattern) matches(event any) bool {
	doc, ok := event.(map[string]any)
	if !ok {
		return false
	}
	for key, want := range p {
		got, there := doc[key]
		switch want := want.(type) {
		case map[string]any:
			if !pattern(want).matches(got) {
				return false
			}
		case []any:
			if !slices.ContainsFunc(want, func(w any) bool { return leaf(w, got, there) }) {
				return false
			}
		}
	}
	return true
}

// leaf reports whether a value, or one of a list of values, is what one element of a pattern wants.
func leaf(want, got any, there bool) bool {
	if many, ok := got.([]any); ok {
		return slices.ContainsFunc(many, func(g any) bool { return leaf(want, g, true) })
	}
	op, ok := want.(map[string]any)
	if !ok {
		return there && equalJSON(want, got)
	}
	s, _ := got.(string)
	for name, arg := range op {
		text, _ := arg.(string)
		switch name {
		case "exists":
			return arg == there
		case "prefix":
			return there && strings.HasPrefix(s, text)
		case "suffix":
			return there && strings.HasSuffix(s, text)
		case "wildcard":
			return there && iam.Match(strings.ReplaceAll(text, "?", "\x00"), s)
		case "equals-ignore-case":
			return there && strings.EqualFold(s, text)
		case "anything-but":
			list, many := arg.([]any)
			if !many {
				list = []any{arg}
			}
			return there && !slices.ContainsFunc(list, func(w any) bool { return leaf(w, got, there) })
		}
	}
	return false
}

func equalJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

// Retries of a target (EventBridge User Guide, "Retry policy").
const (
	defaultRetries  = 185
	defaultEventAge = 24 * time.Hour
	firstRetry      = 200 * time.Millisecond
	longestRetry    = time.Minute
)
