package ecrtest

import (
	"cmp"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

const eventsTarget = "AWSEvents."

var ruleNameRE = regexp.MustCompile(`^[.\-_A-Za-z0-9]{1,64}$`)

// busOperations is the part of EventBridge's API that rules on ECR's events take. Only the default bus exists.
func busOperations() map[string]func(e *Emulator, b *bus, input []byte) (any, error) {
	return map[string]func(e *Emulator, b *bus, input []byte) (any, error){
		"PutRule": busOp((*bus).putRule), "DeleteRule": busOp((*bus).deleteRule), "DescribeRule": busOp((*bus).describeRule), "ListRules": busOp((*bus).listRules),
		"EnableRule":  busOp(func(b *bus, e *Emulator, in ruleName) (any, error) { return b.enable(in.Name, "ENABLED") }),
		"DisableRule": busOp(func(b *bus, e *Emulator, in ruleName) (any, error) { return b.enable(in.Name, "DISABLED") }),
		"PutTargets":  busOp((*bus).putTargets), "RemoveTargets": busOp((*bus).removeTargets), "ListTargetsByRule": busOp((*bus).listTargets),
		"ListTagsForResource": busOp((*bus).listTags), "TagResource": busOp((*bus).tag), "UntagResource": busOp((*bus).untag),
		"CreateConnection": busOp((*bus).createConnection), "CreateApiDestination": busOp((*bus).createAPIDestination),
	}
}

func busOp[In any](f func(b *bus, e *Emulator, in In) (any, error)) func(*Emulator, *bus, []byte) (any, error) {
	return func(e *Emulator, b *bus, input []byte) (any, error) {
		var in In
		if err := json.Unmarshal(input, &in); err != nil {
			return nil, errf("SerializationException", "%v", err)
		}
		return f(b, e, in)
	}
}

// serveEvents answers EventBridge: JSON 1.1, POST / with X-Amz-Target.
func (e *Emulator) serveEvents(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), eventsTarget)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSQS))
	if err != nil {
		writeControl(w, http.StatusBadRequest, errf("SerializationException", "read request: %v", err))
		return
	}
	sig, err := e.verify(r, body)
	if err == nil && sig.Service != "events" {
		err = errf("InvalidSignatureException", "Credential should be scoped to correct service: 'events'.")
	}
	if err != nil {
		writeControl(w, http.StatusBadRequest, asAPI(err))
		return
	}
	do := busOperations()[name]
	if do == nil {
		writeControl(w, http.StatusBadRequest, errf("UnknownOperationException", "no operation %q", name))
		return
	}
	var in ruleName
	json.Unmarshal(body, &in) // a member of the wrong type is the operation's to report
	at := place{sig.Account, sig.Region}
	fail := func(w http.ResponseWriter, f Fault) {
		writeControl(w, f.Status, &apiError{Type: cmp.Or(f.Code, "InternalException"), Message: f.Message})
	}
	e.serve(w, r, Call{Region: sig.Region, Account: sig.Account, Caller: sig.Account, Op: name, Target: cmp.Or(in.Name, in.Rule)}, fail, func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		b := e.bus(at)
		resource := b.arn("rule/" + cmp.Or(in.Name, in.Rule, "*"))
		var out any
		v := e.decide(sig.request(sig.Region, "events:"+name, resource, ""), sig.Policies, nil)
		err := denied(sig.principal, sig.Region, "events:"+name, resource, v)
		if v.Allowed {
			out, err = do(e, b, body)
		}
		e.mu.Unlock()
		if err != nil {
			writeControl(w, http.StatusBadRequest, asAPI(err))
			return
		}
		b2, _ := json.Marshal(out) // strings and numbers
		w.Header().Set("X-Amzn-Requestid", uuid())
		writeBody(w, http.StatusOK, controlType, b2)
	})
}

type ruleName struct {
	Name, Rule string
}

func (b *bus) rule(name string) (*eventRule, error) {
	if r := b.rules[name]; r != nil {
		return r, nil
	}
	return nil, errf("ResourceNotFoundException", "Rule %s does not exist on EventBus default.", name)
}

func (b *bus) putRule(_ *Emulator, in struct {
	Name, EventPattern, State, Description, EventBusName string
	Tags                                                 []keyValue
}) (any, error) {
	if !ruleNameRE.MatchString(in.Name) {
		return nil, errf("ValidationException", "the name of a rule has 1 to 64 of A-Z a-z 0-9 . - _")
	}
	if in.EventBusName != "" && in.EventBusName != "default" {
		return nil, errf("ResourceNotFoundException", "Event bus %s does not exist.", in.EventBusName)
	}
	if _, err := parsePattern(in.EventPattern); err != nil {
		return nil, errf("InvalidEventPatternException", "Event pattern is not valid. Reason: %v", err)
	}
	r := b.rules[in.Name]
	if r == nil {
		r = &eventRule{Name: in.Name, ARN: b.arn("rule/" + in.Name), Bus: "default", tags: map[string]string{}}
		b.rules[in.Name] = r
		for _, t := range in.Tags { // of a rule that is there they are not updated
			r.tags[t.Key] = t.Value
		}
	}
	r.Pattern, r.State, r.Description = in.EventPattern, cmp.Or(in.State, "ENABLED"), in.Description
	return map[string]string{"RuleArn": r.ARN}, nil
}

func (b *bus) deleteRule(_ *Emulator, in ruleName) (any, error) {
	if r := b.rules[in.Name]; r != nil && len(r.targets) > 0 {
		return nil, errf("ValidationException", "Rule can't be deleted since it has targets.")
	}
	delete(b.rules, in.Name)
	return empty{}, nil
}

func (b *bus) describeRule(_ *Emulator, in ruleName) (any, error) { return b.rule(in.Name) }

func (b *bus) listRules(_ *Emulator, in struct{ NamePrefix string }) (any, error) {
	all := []*eventRule{}
	for _, name := range slices.Sorted(maps.Keys(b.rules)) {
		if strings.HasPrefix(name, in.NamePrefix) {
			all = append(all, b.rules[name])
		}
	}
	return map[string]any{"Rules": all}, nil
}

func (b *bus) enable(name, state string) (any, error) {
	r, err := b.rule(name)
	if err != nil {
		return nil, err
	}
	r.State = state
	return empty{}, nil
}

// maxTargets of a rule (EventBridge User Guide, "Amazon EventBridge quotas").
const maxTargets = 5

func (b *bus) putTargets(_ *Emulator, in struct {
	Rule    string
	Targets []*eventTarget
}) (any, error) {
	r, err := b.rule(in.Rule)
	if err != nil {
		return nil, err
	}
	for _, t := range in.Targets {
		id, isQueue := parseQueueARN(t.ARN)
		switch {
		case t.ID == "":
			return nil, errf("ValidationException", "a target needs an Id")
		case isQueue && id.Region != b.Region:
			return nil, errf("ValidationException", "a queue is in the region of its rule")
		case !isQueue && b.destinations[t.ARN] == nil:
			return nil, errf("ValidationException", "Target %s: this emulator delivers to SQS queues and to its own API destinations", t.ARN)
		}
		others := slices.DeleteFunc(slices.Clone(r.targets), func(old *eventTarget) bool { return old.ID == t.ID })
		if len(others) == maxTargets {
			return nil, errf("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
		}
		t.rule = r
		r.targets = append(others, t)
	}
	return noFailures(), nil
}

// noFailures is the answer of a batch that went well.
func noFailures() any { return map[string]any{"FailedEntryCount": 0, "FailedEntries": []any{}} }

func (b *bus) removeTargets(_ *Emulator, in struct {
	Rule string
	IDs  []string `json:"Ids"`
}) (any, error) {
	r, err := b.rule(in.Rule)
	if err != nil {
		return nil, err
	}
	r.targets = slices.DeleteFunc(r.targets, func(t *eventTarget) bool { return slices.Contains(in.IDs, t.ID) })
	return noFailures(), nil
}

func (b *bus) listTargets(_ *Emulator, in ruleName) (any, error) {
	r, err := b.rule(in.Rule)
	if err != nil {
		return nil, err
	}
	return map[string]any{"Targets": append([]*eventTarget{}, r.targets...)}, nil
}

func (b *bus) createConnection(_ *Emulator, in struct {
	Name, AuthorizationType string
	AuthParameters          struct {
		APIKey struct{ ApiKeyName, ApiKeyValue string } `json:"ApiKeyAuthParameters"`
		Basic  struct{ Username, Password string }      `json:"BasicAuthParameters"`
	}
}) (any, error) {
	c := &connection{ARN: b.arn("connection/" + in.Name + "/" + uuid()), Name: in.Name, Type: in.AuthorizationType}
	switch in.AuthorizationType {
	case "API_KEY":
		c.header, c.value = in.AuthParameters.APIKey.ApiKeyName, in.AuthParameters.APIKey.ApiKeyValue
	case "BASIC":
		c.header, c.value = "Authorization", basicAuth(in.AuthParameters.Basic.Username, in.AuthParameters.Basic.Password)
	}
	if !ruleNameRE.MatchString(in.Name) || c.header == "" {
		return nil, errf("ValidationException", "a connection has a name, and an API key or a user; this emulator has no OAuth")
	}
	b.connections[c.ARN] = c
	return map[string]any{"ConnectionArn": c.ARN, "ConnectionState": "AUTHORIZED"}, nil
}

func (b *bus) createAPIDestination(_ *Emulator, in struct {
	Name, ConnectionArn, InvocationEndpoint, HttpMethod string
}) (any, error) {
	c := b.connections[in.ConnectionArn]
	u, err := url.Parse(in.InvocationEndpoint)
	switch {
	case c == nil:
		return nil, errf("ResourceNotFoundException", "Connection %s does not exist.", in.ConnectionArn)
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || !ruleNameRE.MatchString(in.Name):
		return nil, errf("ValidationException", "an API destination has a name and a URL")
	}
	a := &apiDestination{ARN: b.arn("api-destination/" + in.Name + "/" + uuid()), Name: in.Name, Method: cmp.Or(in.HttpMethod, http.MethodPost), Endpoint: in.InvocationEndpoint, connection: c}
	b.destinations[a.ARN] = a
	return map[string]any{"ApiDestinationArn": a.ARN, "ApiDestinationState": "ACTIVE"}, nil
}
