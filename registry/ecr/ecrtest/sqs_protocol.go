package ecrtest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// sqsProtocol is one of the two ways to speak to SQS.
type sqsProtocol interface {
	operation() string
	decode(body []byte, in *sqsIn) error
	answer(w http.ResponseWriter, out any)
	fail(w http.ResponseWriter, status int, err *sqsError)
}

const sqsTarget = "AmazonSQS."

// jsonProtocol is AWS JSON 1.0; its value is the operation.
type jsonProtocol string

// sqsJSON returns the JSON protocol if r speaks it.
func sqsJSON(r *http.Request) sqsProtocol {
	if op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), sqsTarget); ok {
		return jsonProtocol(op)
	}
	return nil
}

func (p jsonProtocol) operation() string                   { return string(p) }
func (p jsonProtocol) decode(body []byte, in *sqsIn) error { return json.Unmarshal(body, in) }

func (p jsonProtocol) answer(w http.ResponseWriter, out any) {
	b, _ := json.Marshal(out) // strings and numbers
	w.Header().Set("X-Amzn-Requestid", uuid())
	writeBody(w, http.StatusOK, "application/x-amz-json-1.0", b)
}

func (p jsonProtocol) fail(w http.ResponseWriter, status int, err *sqsError) {
	if err.Query == "" {
		err.Query = err.Type
	}
	b, _ := json.Marshal(map[string]string{"__type": "com.amazonaws.sqs#" + err.Type, "message": err.Message})
	w.Header().Set("X-Amzn-Query-Error", err.Query+";"+sender(status))
	w.Header().Set("X-Amzn-Requestid", uuid())
	writeBody(w, status, "application/x-amz-json-1.0", b)
}

func sender(status int) string {
	if status >= 500 {
		return "Receiver"
	}
	return "Sender"
}

// queryProtocol is the AWS query protocol: a form in, XML out.
type queryProtocol struct {
	form url.Values
	err  error
}

func sqsQuery(body []byte) sqsProtocol {
	form, err := url.ParseQuery(string(body))
	return &queryProtocol{form, err}
}

func (p *queryProtocol) operation() string { return p.form.Get("Action") }

// maxQueryList bounds the lists of a form: batches have ten entries, attribute names are some thirty.
const maxQueryList = 64

// decode reads a form. Lists are flattened: AttributeName.1=..., Attribute.1.Name=..., <Operation>RequestEntry.1.Id=...
func (p *queryProtocol) decode(_ []byte, in *sqsIn) error {
	if p.err != nil {
		return p.err
	}
	f := p.form
	*in = sqsIn{QueueName: f.Get("QueueName"), QueueURL: f.Get("QueueUrl"), QueueOwnerAWSAccountID: f.Get("QueueOwnerAWSAccountId"),
		QueueNamePrefix: f.Get("QueueNamePrefix"), ReceiptHandle: f.Get("ReceiptHandle"), MessageBody: f.Get("MessageBody")}
	var err error
	number := func(key string) *int {
		if !f.Has(key) {
			return nil
		}
		n, e := strconv.Atoi(f.Get(key))
		if e != nil && err == nil {
			err = fmt.Errorf("%s: %w", key, e)
		}
		return &n
	}
	in.MaxNumberOfMessages, in.WaitTimeSeconds, in.VisibilityTimeout = number("MaxNumberOfMessages"), number("WaitTimeSeconds"), number("VisibilityTimeout")
	if n := number("DelaySeconds"); n != nil {
		in.DelaySeconds = *n
	}
	for i := 1; i <= maxQueryList && f.Has("AttributeName."+itoa(i)); i++ {
		in.AttributeNames = append(in.AttributeNames, f.Get("AttributeName."+itoa(i)))
	}
	for i := 1; i <= maxQueryList && f.Has("MessageSystemAttributeName."+itoa(i)); i++ {
		in.MessageSystemAttributeNames = append(in.MessageSystemAttributeNames, f.Get("MessageSystemAttributeName."+itoa(i)))
	}
	for i := 1; i <= maxQueryList && f.Has("Attribute."+itoa(i)+".Name"); i++ {
		if in.Attributes == nil {
			in.Attributes = map[string]string{}
		}
		in.Attributes[f.Get("Attribute."+itoa(i)+".Name")] = f.Get("Attribute." + itoa(i) + ".Value")
	}
	for i := 1; i <= maxQueryList && f.Has("Tag."+itoa(i)+".Key"); i++ {
		if in.Tags == nil {
			in.Tags = map[string]string{}
		}
		in.Tags[f.Get("Tag."+itoa(i)+".Key")] = f.Get("Tag." + itoa(i) + ".Value")
	}
	for i := 1; i <= maxQueryList && f.Has("TagKey."+itoa(i)); i++ {
		in.TagKeys = append(in.TagKeys, f.Get("TagKey."+itoa(i)))
	}
	for i := 1; i <= maxQueryList; i++ {
		key := f.Get("Action") + "RequestEntry." + itoa(i) + "."
		if !f.Has(key + "Id") {
			break
		}
		e := sqsEntry{ID: f.Get(key + "Id"), ReceiptHandle: f.Get(key + "ReceiptHandle"), MessageBody: f.Get(key + "MessageBody")}
		if n := number(key + "VisibilityTimeout"); n != nil {
			e.VisibilityTimeout = *n
		}
		if n := number(key + "DelaySeconds"); n != nil {
			e.DelaySeconds = *n
		}
		in.Entries = append(in.Entries, e)
	}
	return err
}

const sqsNamespace = "http://queue.amazonaws.com/doc/2012-11-05/"

func (p *queryProtocol) answer(w http.ResponseWriter, out any) {
	writeQuery(w, p.operation(), sqsNamespace, out)
}

// writeQuery answers in the query protocol: <OpResponse><OpResult>...</OpResult>...
func writeQuery(w http.ResponseWriter, op, namespace string, out any) {
	var b strings.Builder
	b.WriteString(xml.Header + "<" + op + `Response xmlns="` + namespace + `">`)
	xml.NewEncoder(&b).EncodeElement(out, xml.StartElement{Name: xml.Name{Local: op + "Result"}}) // strings and numbers
	b.WriteString("<ResponseMetadata><RequestId>" + uuid() + "</RequestId></ResponseMetadata></" + op + "Response>")
	writeBody(w, http.StatusOK, "text/xml", []byte(b.String()))
}

func (p *queryProtocol) fail(w http.ResponseWriter, status int, err *sqsError) {
	if err.Query == "" {
		err.Query = err.Type
	}
	type detail struct {
		Type, Code, Message string
	}
	b, _ := xml.Marshal(struct {
		XMLName xml.Name `xml:"http://queue.amazonaws.com/doc/2012-11-05/ ErrorResponse"`
		Error   detail
		ID      string `xml:"RequestId"`
	}{Error: detail{sender(status), err.Query, err.Message}, ID: uuid()})
	writeBody(w, status, "text/xml", b)
}

// attributes is a map in JSON and a list of Name and Value in XML.
type attributes map[string]string

// only returns the attributes that names asks for; "All" means all.
func (a attributes) only(names []string) attributes {
	out := attributes{}
	for k, v := range a {
		if slices.Contains(names, k) || slices.Contains(names, "All") {
			out[k] = v
		}
	}
	return out
}

// MarshalXML writes one element start per attribute.
func (a attributes) MarshalXML(enc *xml.Encoder, start xml.StartElement) error {
	keys := make([]string, 0, len(a))
	for k := range a {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := enc.EncodeElement(struct{ Name, Value string }{k, a[k]}, start); err != nil {
			return err
		}
	}
	return nil
}

// queueTags are attributes whose names are called keys.
type queueTags map[string]string

func (t queueTags) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	for _, k := range slices.Sorted(maps.Keys(t)) {
		if err := e.EncodeElement(keyValue{k, t[k]}, start); err != nil {
			return err
		}
	}
	return nil
}
