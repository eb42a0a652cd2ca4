package ecrtest_test

import (
	"context"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	sqstypes "github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func sqsClient(t *testing.T, emu *ecrtest.Emulator, account, region string) *sqs.Client {
	cfg := emu.Config(account, region)
	cfg.HTTPClient = httpClient(t)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return sqs.NewFromConfig(cfg)
}

// drain receives and deletes what a queue holds.
func drain(t *testing.T, emu *ecrtest.Emulator, queue string) []string {
	t.Helper()
	c, u := sqsClient(t, emu, account, region), aws.String(emu.QueueURL(account, region, queue))
	var bodies []string
	for {
		out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: u, MaxNumberOfMessages: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return bodies
		}
		for _, m := range out.Messages {
			bodies = append(bodies, *m.Body)
			if _, err := c.DeleteMessage(t.Context(), &sqs.DeleteMessageInput{QueueUrl: u, ReceiptHandle: m.ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestEvents(t *testing.T) {
	clk := newClock()
	clk.now = time.Date(2026, 11, 4, 10, 20, 30, 999, time.UTC)
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	emu.Subscribe(account, region, "events")
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 10)
	ix := registrytest.Index(img)
	sig := registrytest.Referrer(ix.Desc, "application/x.sig", []byte("sig"))
	push(t, c, "app", "v1", ix)
	put(t, c, "app", "v1", ix) // changes nothing, so no event
	put(t, c, "app", "v2", ix)
	push(t, c, "app", "", sig)
	v := v2Client(t, emu, c)
	v.do("DELETE", "/v2/app/manifests/"+ix.Desc.Digest.String(), nil)

	event := func(kind, action, tag string, n registrytest.Node, artifact string) string {
		extra := `"manifest-media-type":"` + n.Desc.MediaType + `"`
		if artifact != "" {
			extra += `,"artifact-media-type":"` + artifact + `"`
		}
		return `{"version":"0","id":"ID","detail-type":"` + kind + `","source":"aws.ecr","account":"111122223333","time":"2026-11-04T10:20:30Z","region":"us-west-2","resources":[],` +
			`"detail":{"result":"SUCCESS","repository-name":"app","image-digest":"` + n.Desc.Digest.String() + `","action-type":"` + action + `","image-tag":"` + tag + `",` + extra + `}}`
	}
	want := []string{
		event("ECR Image Action", "PUSH", "", img, "application/vnd.oci.image.config.v1+json"),
		event("ECR Image Action", "PUSH", "v1", ix, ""),
		event("ECR Image Action", "PUSH", "v2", ix, ""),
		event("ECR Referrer Action", "PUSH", "", sig, "application/x.sig"),
		event("ECR Image Action", "DELETE", "v1", ix, ""),
		event("ECR Image Action", "DELETE", "v2", ix, ""),
	}
	got := drain(t, emu, "events")
	id := regexp.MustCompile(`"id":"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"`)
	for i := range got {
		got[i] = id.ReplaceAllString(got[i], `"id":"ID"`)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}

	// Lost, twice and wrapped, late.
	emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery {
		switch ev.Detail.Tag {
		case "lost":
			return nil
		case "twice":
			return []ecrtest.Delivery{{Body: ev.SNS()}, {Body: ev.CloudTrail()}}
		}
		return []ecrtest.Delivery{{Body: ev.Raw(), Delay: time.Minute}}
	})
	for _, tag := range []string{"lost", "twice", "late"} {
		if err := put(t, c, "app", tag, img); err != nil {
			t.Fatal(err)
		}
	}
	got = drain(t, emu, "events")
	if len(got) != 2 || !strings.Contains(got[0], `"Type":"Notification"`) || !strings.Contains(got[1], `"eventName":"PutImage"`) {
		t.Errorf("%q", got)
	}
	var sns struct{ Message string }
	var inner ecrtest.Event
	json.Unmarshal([]byte(got[0]), &sns)
	if err := json.Unmarshal([]byte(sns.Message), &inner); err != nil || inner.Detail.Tag != "twice" {
		t.Error(err, sns.Message)
	}
	clk.Advance(time.Minute)
	if got = drain(t, emu, "events"); len(got) != 1 {
		t.Errorf("late: %q", got)
	}
}

func TestQueue(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	c, ctx := sqsClient(t, emu, account, region), t.Context()
	dlq, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("dead")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("q"), Attributes: map[string]string{"VisibilityTimeout": "60",
		"RedrivePolicy": `{"deadLetterTargetArn":"arn:aws:sqs:us-west-2:111122223333:dead","maxReceiveCount":"2"}`}}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("q")})
	if err != nil || *got.QueueUrl != emu.QueueURL(account, region, "q") {
		t.Fatal(got, err)
	}
	q := got.QueueUrl
	if _, err := c.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: q, Tags: map[string]string{"a": "1", "b": "2"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: q, TagKeys: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	if tags, err := c.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: q}); err != nil || len(tags.Tags) != 1 || tags.Tags["b"] != "2" {
		t.Errorf("tags: %v, %v", tags, err)
	}
	if _, err := c.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: aws.String("none")}); code(err) != "AWS.SimpleQueueService.NonExistentQueue" && code(err) != "QueueDoesNotExist" {
		t.Error(code(err))
	}
	if _, err := c.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: q, MessageBody: aws.String("one <&> \u00fc")}); err != nil {
		t.Fatal(err)
	}
	receive := func(q *string) *sqstypes.Message {
		t.Helper()
		out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q, MaxNumberOfMessages: 10, MessageSystemAttributeNames: []sqstypes.MessageSystemAttributeName{"All"}})
		if err != nil {
			t.Fatal(err)
		}
		if len(out.Messages) == 0 {
			return nil
		}
		return &out.Messages[0]
	}
	m := receive(q)
	if m == nil || *m.Body != "one <&> \u00fc" || m.Attributes["ApproximateReceiveCount"] != "1" || m.Attributes["SentTimestamp"] == "" {
		t.Fatalf("%+v", m)
	}
	if receive(q) != nil {
		t.Error("seen while in flight")
	}
	attrs, err := c.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: q, AttributeNames: []sqstypes.QueueAttributeName{"All"}})
	if err != nil || attrs.Attributes["ApproximateNumberOfMessages"] != "0" || attrs.Attributes["ApproximateNumberOfMessagesNotVisible"] != "1" {
		t.Error(attrs, err)
	}
	if _, err := c.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{QueueUrl: q, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: 300}); err != nil {
		t.Error(err)
	}
	clk.Advance(299 * time.Second)
	if receive(q) != nil {
		t.Error("seen before its extended timeout")
	}
	clk.Advance(2 * time.Second)
	again := receive(q)
	if again == nil || again.Attributes["ApproximateReceiveCount"] != "2" {
		t.Fatalf("%+v", again)
	}
	c.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: q, ReceiptHandle: m.ReceiptHandle}) // outdated: does nothing
	batch, err := c.ChangeMessageVisibilityBatch(ctx, &sqs.ChangeMessageVisibilityBatchInput{QueueUrl: q, Entries: []sqstypes.ChangeMessageVisibilityBatchRequestEntry{
		{Id: aws.String("a"), ReceiptHandle: again.ReceiptHandle}, {Id: aws.String("b"), ReceiptHandle: aws.String("junk")}}})
	if err != nil || len(batch.Successful) != 1 || len(batch.Failed) != 1 {
		t.Error(batch, err)
	}
	if receive(q) != nil {
		t.Error("received more often than the redrive policy says")
	}
	out, err := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: dlq.QueueUrl, WaitTimeSeconds: 5})
	if err != nil || len(out.Messages) != 1 {
		t.Error("dead letters:", out, err)
	}
	del, err := c.DeleteMessageBatch(ctx, &sqs.DeleteMessageBatchInput{QueueUrl: dlq.QueueUrl, Entries: []sqstypes.DeleteMessageBatchRequestEntry{{Id: aws.String("a"), ReceiptHandle: out.Messages[0].ReceiptHandle}}})
	if err != nil || len(del.Successful) != 1 {
		t.Error(del, err)
	}
	if all, _ := emu.QueueLen(account, region, "dead"); all != 0 {
		t.Error("not deleted")
	}
	emu.SendMessage(account, region, "q", "x")
	if _, err := c.PurgeQueue(ctx, &sqs.PurgeQueueInput{QueueUrl: q}); err != nil {
		t.Error(err)
	}
	if all, _ := emu.QueueLen(account, region, "q"); all != 0 {
		t.Error("not purged")
	}
	if _, err := sqsClient(t, emu, other, region).ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q}); err == nil {
		t.Error("another account reads the queue")
	}
	if _, err := sqsClient(t, emu, account, "eu-central-1").ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q}); err == nil {
		t.Error("a queue of one region is in another")
	}
}

func TestLongPoll(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	emu.Subscribe(account, region, "q")
	c, q := sqsClient(t, emu, account, region), aws.String(emu.QueueURL(account, region, "q"))
	got := make(chan int)
	wait := func(ctx context.Context) {
		out, _ := c.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q, WaitTimeSeconds: 20})
		if out == nil {
			got <- -1
			return
		}
		got <- len(out.Messages)
	}
	go wait(t.Context())
	for len(emu.Calls()) == 0 { // until the receiver is there
		time.Sleep(time.Millisecond)
	}
	emu.SendMessage(account, region, "q", "hello")
	if n := <-got; n != 1 {
		t.Errorf("%d messages", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go wait(ctx)
	cancel()
	if n := <-got; n != -1 {
		t.Errorf("%d messages", n)
	}
	// Close ends a waiting receive.
	emu.ResetCalls()
	go wait(t.Context())
	for len(emu.Calls()) == 0 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	emu.Close()
	<-got
	if d := time.Since(begin); d > 5*time.Second {
		t.Errorf("close took %v", d)
	}
}
