package ecrtest

import (
	"io"
	"maps"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

const maxSQS = 2 << 20 // ten messages of up to 1 MiB in all, and their JSON

// sqsIn is the input of every operation, whichever protocol brought it.
type sqsIn struct {
	QueueName                   string
	QueueURL                    string `json:"QueueUrl"`
	QueueOwnerAWSAccountID      string `json:"QueueOwnerAWSAccountId"`
	QueueNamePrefix             string
	Attributes                  map[string]string
	AttributeNames              []string
	MessageSystemAttributeNames []string
	MaxNumberOfMessages         *int
	WaitTimeSeconds             *int
	VisibilityTimeout           *int
	DelaySeconds                int
	ReceiptHandle               string
	MessageBody                 string
	Entries                     []sqsEntry
	Tags                        map[string]string // also of CreateQueue, which writes it in lower case
	TagKeys                     []string
}

type sqsEntry struct {
	ID                string `json:"Id"`
	ReceiptHandle     string
	VisibilityTimeout int
	MessageBody       string
	DelaySeconds      int
}

// sqsError is a failure; Query is its name in the query protocol when that is another.
type sqsError struct {
	apiError
	Query string
}

func sqsErr(typ, query, message string) *sqsError {
	return &sqsError{apiError{Type: typ, Message: message}, query}
}

// sqsCall is one authenticated SQS request.
type sqsCall struct {
	*Emulator
	r     *http.Request
	who   signed
	in    sqsIn
	id    queueID
	queue *queue // nil for operations on no queue
}

type sqsOperation struct {
	queue bool // works on an existing queue
	do    func(c *sqsCall) (any, *sqsError)
}

// sqsOperations are the operations. One more is a line here and its function.
func sqsOperations() map[string]sqsOperation {
	return map[string]sqsOperation{
		"CreateQueue":                  {false, (*sqsCall).create},
		"ListQueues":                   {false, (*sqsCall).list},
		"GetQueueUrl":                  {true, (*sqsCall).url},
		"GetQueueAttributes":           {true, (*sqsCall).attributes},
		"SetQueueAttributes":           {true, (*sqsCall).setAttributes},
		"SendMessage":                  {true, (*sqsCall).send},
		"SendMessageBatch":             {true, (*sqsCall).sendBatch},
		"ReceiveMessage":               {true, (*sqsCall).receive},
		"DeleteMessage":                {true, (*sqsCall).delete},
		"DeleteMessageBatch":           {true, (*sqsCall).deleteBatch},
		"ChangeMessageVisibility":      {true, (*sqsCall).changeVisibility},
		"ChangeMessageVisibilityBatch": {true, (*sqsCall).changeVisibilityBatch},
		"ListQueueTags":                {true, (*sqsCall).listTags},
		"TagQueue":                     {true, (*sqsCall).tag},
		"UntagQueue":                   {true, (*sqsCall).untag},
		"PurgeQueue":                   {true, (*sqsCall).purge},
		"DeleteQueue":                  {true, (*sqsCall).deleteQueue},
	}
}

var queueNameRE = regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$`)

// serveSQS answers SQS in both protocols: JSON 1.0 with X-Amz-Target, and the older query protocol (form in, XML out), which
// older tools such as AWS CLI before 2.13 speak.
func (e *Emulator) serveSQS(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSQS))
	p := sqsJSON(r)
	if err == nil && p == nil {
		t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if t == "application/x-www-form-urlencoded" {
			p = sqsQuery(body)
		}
	}
	if err != nil || p == nil {
		http.Error(w, "neither the JSON nor the query protocol of SQS", http.StatusBadRequest)
		return
	}
	sig, err := e.verify(r, body)
	if err != nil {
		a := asAPI(err)
		p.fail(w, http.StatusForbidden, &sqsError{*a, map[string]string{"UnrecognizedClientException": "InvalidClientTokenId",
			"InvalidSignatureException": "SignatureDoesNotMatch", "MissingAuthenticationTokenException": "MissingAuthenticationToken"}[a.Type]})
		return
	}
	c := &sqsCall{Emulator: e, r: r, who: sig}
	name := p.operation()
	if sig.Service == "sts" {
		q, _ := p.(*queryProtocol)
		if q == nil {
			q = &queryProtocol{}
		}
		e.serveSTS(w, sig, name, p, q.form)
		return
	}
	o, known := sqsOperations()[name]
	if err := p.decode(body, &c.in); err != nil || !known || sig.Service != "sqs" {
		p.fail(w, http.StatusBadRequest, sqsErr("InvalidAction", "", "operation "+strconv.Quote(name)+": unknown or malformed"))
		return
	}
	c.id = queueID{place{sig.Account, sig.Region}, c.in.QueueName}
	if c.in.QueueOwnerAWSAccountID != "" {
		c.id.Account = c.in.QueueOwnerAWSAccountID
	}
	if c.in.QueueURL != "" {
		if f := strings.Split(strings.TrimRight(c.in.QueueURL, "/"), "/"); len(f) >= 2 {
			c.id.Account, c.id.name = f[len(f)-2], f[len(f)-1]
		}
	}
	fail := func(w http.ResponseWriter, f Fault) {
		if f.Code == "" {
			f.Code = map[int]string{403: "AccessDenied", 429: "RequestThrottled", 400: "InvalidParameterValue"}[f.Status]
			if f.Code == "" {
				f.Code = "InternalFailure"
			}
		}
		p.fail(w, f.Status, sqsErr(f.Code, "", f.Message))
	}
	e.serve(w, r, Call{Region: sig.Region, Account: c.id.Account, Caller: sig.Account, Op: name, Target: c.id.name}, fail, func(w http.ResponseWriter, r *http.Request) {
		c.r = r
		if o.queue {
			e.mu.Lock()
			c.queue = e.queues[c.id]
			e.mu.Unlock()
			if c.queue == nil {
				p.fail(w, http.StatusBadRequest, sqsErr("QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist."))
				return
			}
		}
		if serr := c.allowed(name); serr != nil {
			p.fail(w, http.StatusForbidden, serr)
			return
		}
		out, serr := o.do(c)
		if serr != nil {
			p.fail(w, http.StatusBadRequest, serr)
			return
		}
		p.answer(w, out)
	})
}

type empty struct{}

type queueURL struct {
	QueueURL string `json:"QueueUrl" xml:"QueueUrl"`
}

func (c *sqsCall) queueURL(name string) string {
	return baseURL(c.r) + "/" + c.id.Account + "/" + name
}

func (c *sqsCall) create() (any, *sqsError) {
	if !queueNameRE.MatchString(c.in.QueueName) {
		return nil, sqsErr("InvalidParameterValue", "", "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length")
	}
	c.queue = c.Emulator.queue(c.id)
	c.tag()
	return queueURL{c.queueURL(c.in.QueueName)}, c.set()
}

func (c *sqsCall) listTags() (any, *sqsError) {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	return struct {
		Tags queueTags `json:",omitempty" xml:"Tag"`
	}{maps.Clone(c.queue.tags)}, nil
}

func (c *sqsCall) tag() (any, *sqsError) {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	maps.Copy(c.queue.tags, c.in.Tags)
	return empty{}, nil
}

func (c *sqsCall) untag() (any, *sqsError) {
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	for _, key := range c.in.TagKeys {
		delete(c.queue.tags, key)
	}
	return empty{}, nil
}

// set stores the attributes of the input. A policy that could not be enforced is refused.
func (c *sqsCall) set() *sqsError {
	if text := c.in.Attributes["Policy"]; text != "" {
		if _, err := iam.Parse(iam.Queue, []byte(text)); err != nil {
			return sqsErr("InvalidAttributeValue", "", "Invalid value for the parameter Policy. Reason: "+err.Error())
		}
	}
	c.queue.mu.Lock()
	defer c.queue.mu.Unlock()
	for k, v := range c.in.Attributes {
		c.queue.attrs[k] = v
	}
	return nil
}

func (c *sqsCall) setAttributes() (any, *sqsError) { return empty{}, c.set() }

func (c *sqsCall) list() (any, *sqsError) {
	c.Emulator.mu.Lock()
	defer c.Emulator.mu.Unlock()
	urls := []string{}
	for id := range c.queues {
		if id.place == (place{c.who.Account, c.who.Region}) && strings.HasPrefix(id.name, c.in.QueueNamePrefix) {
			urls = append(urls, c.queueURL(id.name))
		}
	}
	slices.Sort(urls)
	return struct {
		QueueURLs []string `json:"QueueUrls" xml:"QueueUrl"`
	}{urls}, nil
}

func (c *sqsCall) url() (any, *sqsError) { return queueURL{c.queueURL(c.id.name)}, nil }

func (c *sqsCall) attributes() (any, *sqsError) {
	visible, hidden, delayed := c.queue.count()
	all := attributes{
		"ApproximateNumberOfMessages":           itoa(visible),
		"ApproximateNumberOfMessagesNotVisible": itoa(hidden),
		"ApproximateNumberOfMessagesDelayed":    itoa(delayed),
		"QueueArn":                              c.id.arn(),
	}
	c.queue.mu.Lock()
	for k, v := range c.queue.attrs {
		all[k] = v
	}
	c.queue.mu.Unlock()
	return struct {
		Attributes attributes `json:",omitempty" xml:"Attribute"`
	}{all.only(c.in.AttributeNames)}, nil
}

// parseQueueARN reads arn:PARTITION:sqs:REGION:ACCOUNT:NAME.
func parseQueueARN(arn string) (queueID, bool) {
	f := strings.Split(arn, ":")
	if len(f) != 6 || f[0] != "arn" || f[2] != "sqs" || !queueNameRE.MatchString(f[5]) {
		return queueID{}, false
	}
	return queueID{place{f[4], f[3]}, f[5]}, true
}

func (c *sqsCall) purge() (any, *sqsError) {
	c.queue.purge()
	return empty{}, nil
}

func (c *sqsCall) deleteQueue() (any, *sqsError) {
	c.Emulator.mu.Lock()
	defer c.Emulator.mu.Unlock()
	delete(c.queues, c.id)
	return empty{}, nil
}

func (q queueID) arn() string {
	return "arn:" + partition(q.Region) + ":sqs:" + q.Region + ":" + q.Account + ":" + q.name
}

func seconds(n *int, otherwise int) time.Duration {
	if n == nil {
		return time.Duration(otherwise) * time.Second
	}
	return time.Duration(*n) * time.Second
}
