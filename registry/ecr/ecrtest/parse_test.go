package ecrtest

import (
	"encoding/json"
	"encoding/xml"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

func TestQueryProtocol(t *testing.T) {
	p := sqsQuery([]byte("Action=DeleteMessageBatch&QueueUrl=http%3A%2F%2Fh%2F1%2Fq&DeleteMessageBatchRequestEntry.1.Id=a&DeleteMessageBatchRequestEntry.1.ReceiptHandle=r" +
		"&AttributeName.1=All&Attribute.1.Name=VisibilityTimeout&Attribute.1.Value=5&WaitTimeSeconds=3"))
	var in sqsIn
	if err := p.decode(nil, &in); err != nil {
		t.Fatal(err)
	}
	three := 3
	want := sqsIn{QueueURL: "http://h/1/q", AttributeNames: []string{"All"}, Attributes: map[string]string{"VisibilityTimeout": "5"}, WaitTimeSeconds: &three,
		Entries: []sqsEntry{{ID: "a", ReceiptHandle: "r"}}}
	if d := cmp.Diff(want, in); d != "" {
		t.Error(d)
	}
	w := httptest.NewRecorder()
	p.answer(w, struct {
		Messages []sqsMessage `xml:"Message"`
	}{[]sqsMessage{{"id", "handle", "md5", "a<b", attributes{"SentTimestamp": "1"}}}})
	got := w.Body.String()
	for _, s := range []string{"<DeleteMessageBatchResult>", "<Message><MessageId>id</MessageId><ReceiptHandle>handle</ReceiptHandle><MD5OfBody>md5</MD5OfBody><Body>a&lt;b</Body>" +
		"<Attribute><Name>SentTimestamp</Name><Value>1</Value></Attribute></Message>"} {
		if !strings.Contains(got, s) {
			t.Errorf("no %s in %s", s, got)
		}
	}
}

func FuzzQueryProtocol(f *testing.F) {
	f.Add("Action=ReceiveMessage&QueueUrl=http%3A%2F%2Fh%2F1%2Fq&MaxNumberOfMessages=10&AttributeName.1=All")
	f.Add("Action=SendMessageBatch&SendMessageBatchRequestEntry.1.Id=a&SendMessageBatchRequestEntry.1.DelaySeconds=x")
	f.Add("Action=%zz&;")
	f.Fuzz(func(t *testing.T, body string) {
		p := sqsQuery([]byte(body))
		var in sqsIn
		if p.decode([]byte(body), &in) == nil && len(in.Entries) > maxQueryList {
			t.Error("unbounded list")
		}
		w := httptest.NewRecorder()
		p.fail(w, 400, sqsErr("InvalidAction", "", p.operation()))
		if err := xml.Unmarshal(w.Body.Bytes(), new(struct{})); err != nil {
			t.Errorf("answer to %q: %v", body, err)
		}
	})
}

func FuzzToken(f *testing.F) {
	e, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	e.Credentials("111122223333")
	e.Credentials("444455556666")
	good, _ := e.mintToken(e.principal("AKIA111122223333EMUL"), "us-west-2")
	f.Add(good)
	f.Add("e30=")
	f.Fuzz(func(t *testing.T, pw string) {
		if who, err := e.checkToken(pw, "us-west-2"); (err == nil) != (who != nil) || err == nil && who.Account != "111122223333" {
			t.Errorf("%q: %v, %v", pw, who, err)
		}
	})
}

func FuzzAuthorization(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKID/20261104/us-west-2/ecr/aws4_request, SignedHeaders=host;x-amz-date, Signature=00ff")
	f.Add("AWS4-HMAC-SHA256 Credential=////,Signature")
	e, err := New(Options{Accounts: []string{"111122223333"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, h string) {
		r := httptest.NewRequest("POST", "/", nil)
		r.Header.Set("Authorization", h)
		r.Header.Set("X-Amz-Date", "20261104T000000Z")
		if _, err := e.verify(r, nil); err == nil {
			t.Errorf("%q verified", h)
		}
	})
}

func FuzzPattern(f *testing.F) {
	f.Add(`{"source":["aws.ecr"],"detail":{"repository-name":[{"prefix":"team/"},{"anything-but":["x"]}],"image-tag":[{"exists":false}]}}`)
	f.Add(`{"detail":{"a":{"b":[null,1,{"wildcard":"*?"}]}}}`)
	var event any
	if err := json.Unmarshal([]byte(Event{Source: "aws.ecr", Detail: Detail{Repository: "team/app"}}.Raw()), &event); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePattern(text); err == nil {
			p.matches(event)
			p.matches(nil)
		}
	})
}

func FuzzLifecyclePolicy(f *testing.F) {
	f.Add(`{"rules":[{"rulePriority":1,"description":"keep the newest, and let everything else go after a while","selection":{"tagStatus":"tagged","tagPatternList":["v*"],"countType":"sinceImagePushed","countUnit":"days","countNumber":9},"action":{"type":"expire"}}]}`)
	p := &repository{Tags: map[string]digest.Digest{"v1": digest.FromString("a")}, Images: map[digest.Digest]*image{digest.FromString("a"): {}, digest.FromString("b"): {}}}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLifecycle(text)
		if err != nil {
			return
		}
		if acts := l.evaluate(p, time.Now()); len(acts) > len(p.Images) {
			t.Errorf("%d acts on %d images", len(acts), len(p.Images))
		}
	})
}
