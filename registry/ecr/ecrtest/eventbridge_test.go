package ecrtest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// bridge calls EventBridge; the answer is decoded, and an exception is its name.
func bridge(t *testing.T, emu *ecrtest.Emulator, creds aws.Credentials, op string, in map[string]any) (out map[string]any, exception string) {
	t.Helper()
	body, _ := json.Marshal(in)
	req, err := http.NewRequestWithContext(t.Context(), "POST", emu.ControlURL(), bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Amz-Target", "AWSEvents."+op)
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, req, hex.EncodeToString(sum[:]), "events", region, time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := httpClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	exception, _ = out["__type"].(string)
	return out, exception
}

const pushes = `{"source":["aws.ecr"],"detail-type":["ECR Image Action"],"detail":{"action-type":["PUSH"],"result":["SUCCESS"],"repository-name":[{"prefix":"team/"}]}}`

// A rule sends what it matches to a queue, if the queue's policy lets EventBridge.
func TestRuleToQueue(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	creds, ctx := emu.Credentials(account), t.Context()
	c, q := client(t, emu, creds), sqsClient(t, emu, account, region)
	for _, name := range []string{"q", "dead"} {
		if _, err := q.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	call := func(op string, in map[string]any) map[string]any {
		t.Helper()
		out, exc := bridge(t, emu, creds, op, in)
		if exc != "" {
			t.Fatalf("%s: %v", op, out)
		}
		return out
	}
	rule := call("PutRule", map[string]any{"Name": "pushes", "EventPattern": pushes})["RuleArn"].(string)
	const queue = "arn:aws:sqs:us-west-2:111122223333:q"
	call("PutTargets", map[string]any{"Rule": "pushes", "Targets": []any{map[string]any{"Id": "1", "Arn": queue, "DeadLetterConfig": map[string]any{"Arn": "arn:aws:sqs:us-west-2:111122223333:dead"}}}})
	img := registrytest.Image(1, 10)
	push(t, c, "team/app", "v0", img)
	if got := drain(t, emu, "q"); got != nil {
		t.Errorf("a queue without a policy got %q", got)
	}
	if got := drain(t, emu, "dead"); len(got) != 1 {
		t.Errorf("dead letters: %q", got)
	}
	policy := `{"Statement":{"Effect":"Allow","Principal":{"Service":"events.amazonaws.com"},"Action":"sqs:SendMessage","Resource":"` + queue + `","Condition":{"ArnEquals":{"aws:SourceArn":"` + rule + `"}}}}`
	if _, err := q.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: aws.String(emu.QueueURL(account, region, "q")), Attributes: map[string]string{"Policy": policy}}); err != nil {
		t.Fatal(err)
	}
	put(t, c, "team/app", "v1", img)
	push(t, c, "other", "v1", img)
	push(t, c, "team/app", "", registrytest.Referrer(img.Desc, "application/x.sig", []byte("s"))) // another detail-type
	v := v2Client(t, emu, c)
	v.do("DELETE", "/v2/team/app/manifests/v0", nil)
	if got := drain(t, emu, "q"); len(got) != 1 || !strings.Contains(got[0], `"image-tag":"v1"`) {
		t.Errorf("%q", got)
	}
	var more []any
	for i := range 5 {
		more = append(more, map[string]any{"Id": fmt.Sprint(i), "Arn": queue})
	}
	call("PutTargets", map[string]any{"Rule": "pushes", "Targets": more})
	if _, exc := bridge(t, emu, creds, "PutTargets", map[string]any{"Rule": "pushes", "Targets": []any{map[string]any{"Id": "5", "Arn": queue}}}); exc != "LimitExceededException" {
		t.Errorf("a sixth target: %q", exc)
	}
	call("RemoveTargets", map[string]any{"Rule": "pushes", "Ids": []string{"0", "2", "3", "4"}})
	call("TagResource", map[string]any{"ResourceARN": rule, "Tags": []any{map[string]any{"Key": "a", "Value": "1"}, map[string]any{"Key": "b", "Value": "2"}}})
	call("UntagResource", map[string]any{"ResourceARN": rule, "TagKeys": []string{"a"}})
	if got := call("ListTagsForResource", map[string]any{"ResourceARN": rule}); len(got["Tags"].([]any)) != 1 {
		t.Error(got)
	}
	call("DisableRule", map[string]any{"Name": "pushes"})
	put(t, c, "team/app", "v2", img)
	if got := drain(t, emu, "q"); got != nil {
		t.Errorf("a disabled rule sent %q", got)
	}
	if got := call("ListTargetsByRule", map[string]any{"Rule": "pushes"}); len(got["Targets"].([]any)) != 1 {
		t.Error(got)
	}
	call("RemoveTargets", map[string]any{"Rule": "pushes", "Ids": []string{"1"}})
	call("DeleteRule", map[string]any{"Name": "pushes"})
	if got := call("ListRules", nil); len(got["Rules"].([]any)) != 0 {
		t.Error(got)
	}
	for want, in := range map[string]map[string]any{
		"InvalidEventPatternException": {"Name": "x", "EventPattern": `{"detail":{"image-tag":[{"numeric":["=",1]}]}}`},
		"ResourceNotFoundException":    {"Name": "x", "EventPattern": pushes, "EventBusName": "mine"},
		"ValidationException":          {"Name": "no good name", "EventPattern": pushes},
	} {
		if _, exc := bridge(t, emu, creds, "PutRule", in); exc != want {
			t.Errorf("%v: %s, want %s", in, exc, want)
		}
	}
	if _, exc := bridge(t, emu, emu.Role(account, "reader", "ecr:*"), "PutRule", map[string]any{"Name": "x", "EventPattern": pushes}); exc != "AccessDeniedException" {
		t.Error(exc)
	}
}

// An API destination is called as EventBridge does, and again until it takes the event; a refusal that is final goes to the dead letters.
func TestRuleToHTTP(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	creds := emu.Credentials(account)
	c := client(t, emu, creds)
	type hit struct {
		header http.Header
		body   string
		close  bool
	}
	hits := make(chan hit, 10)
	answers := make(chan int, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		hits <- hit{r.Header, string(b), r.Close}
		w.WriteHeader(<-answers)
	}))
	defer srv.Close()
	sqsClient(t, emu, account, region).CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("dead")})
	call := func(op string, in map[string]any) map[string]any {
		t.Helper()
		out, exc := bridge(t, emu, creds, op, in)
		if exc != "" {
			t.Fatalf("%s: %v", op, out)
		}
		return out
	}
	conn := call("CreateConnection", map[string]any{"Name": "c", "AuthorizationType": "API_KEY",
		"AuthParameters": map[string]any{"ApiKeyAuthParameters": map[string]any{"ApiKeyName": "X-Token", "ApiKeyValue": "secret"}}})["ConnectionArn"]
	dest := call("CreateApiDestination", map[string]any{"Name": "d", "ConnectionArn": conn, "InvocationEndpoint": srv.URL + "/events", "HttpMethod": "POST"})["ApiDestinationArn"]
	call("PutRule", map[string]any{"Name": "all", "EventPattern": `{"source":["aws.ecr"]}`})
	call("PutTargets", map[string]any{"Rule": "all", "Targets": []any{map[string]any{"Id": "1", "Arn": dest,
		"HttpParameters": map[string]any{"HeaderParameters": map[string]string{"X-More": "yes"}}, "DeadLetterConfig": map[string]any{"Arn": "arn:aws:sqs:us-west-2:111122223333:dead"}}}})
	img := registrytest.Image(1, 10)
	for _, status := range []int{503, 429, 204} {
		answers <- status
	}
	push(t, c, "app", "v1", img)
	for range 3 {
		h := <-hits
		want := http.Header{"User-Agent": {"Amazon/EventBridge/ApiDestinations"}, "Content-Type": {"application/json; charset=utf-8"}, "Range": {"bytes=0-1048575"}, "X-Token": {"secret"}, "X-More": {"yes"}}
		got := http.Header{}
		for k := range want {
			got[k] = h.header[k]
		}
		if d := cmp.Diff(want, got); d != "" || !h.close || !strings.Contains(h.body, `"image-tag":"v1"`) {
			t.Errorf("%v %s", d, h.body)
		}
	}
	answers <- 400
	put(t, c, "app", "v2", img)
	if h := <-hits; !strings.Contains(h.body, `"image-tag":"v2"`) {
		t.Error(h.body)
	}
	if got := collect(t, emu, region, "dead", 1); !strings.Contains(got[0], `"image-tag":"v2"`) {
		t.Errorf("dead letters: %q", got)
	}
}

// Events are lost, doubled and late as often as the options say.
func TestEventQuality(t *testing.T) {
	img := registrytest.Image(1, 10)
	for name, tc := range map[string]struct {
		quality ecrtest.EventQuality
		quirks  ecrtest.Quirks
		want    int
		tag     bool
	}{
		"best":    {ecrtest.EventQuality{}, ecrtest.Quirks{}, 1, true},
		"lost":    {ecrtest.EventQuality{Loss: 1}, ecrtest.Quirks{}, 0, false},
		"doubled": {ecrtest.EventQuality{Duplicates: 1}, ecrtest.Quirks{}, 2, true},
		"late":    {ecrtest.EventQuality{Delay: 24 * time.Hour}, ecrtest.Quirks{}, 0, false},
		"no tag":  {ecrtest.EventQuality{}, ecrtest.Quirks{NoImageTag: true}, 1, false},
	} {
		emu := start(t, ecrtest.Options{Events: tc.quality, Quirks: tc.quirks})
		emu.Subscribe(account, region, "q")
		push(t, client(t, emu, emu.Credentials(account)), "app", "", img)
		got := drain(t, emu, "q")
		if len(got) != tc.want || slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "image-tag") != tc.tag }) {
			t.Errorf("%s: %q", name, got)
		}
		if all, _ := emu.QueueLen(account, region, "q"); name == "late" && all != 1 {
			t.Errorf("late: %d in the queue", all)
		}
	}
}
