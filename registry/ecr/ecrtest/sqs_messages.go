package ecrtest

import (
	"context"
	"strconv"
	"time"
)

type sqsMessage struct {
	MessageID     string `json:"MessageId" xml:"MessageId"`
	ReceiptHandle string
	MD5OfBody     string
	Body          string
	Attributes    attributes `json:",omitempty" xml:"Attribute"`
}

func (c *sqsCall) receive() (any, *sqsError) {
	n, wait := 1, seconds(c.in.WaitTimeSeconds, -1)
	if c.in.MaxNumberOfMessages != nil {
		n = *c.in.MaxNumberOfMessages
	}
	if wait < 0 {
		c.queue.mu.Lock()
		wait = time.Duration(atoi64(c.queue.attrs["ReceiveMessageWaitTimeSeconds"])) * time.Second
		c.queue.mu.Unlock()
	}
	switch {
	case n < 1 || n > 10:
		return nil, invalidValue(n, "MaxNumberOfMessages", "between 1 and 10, if provided")
	case wait > 20*time.Second:
		return nil, invalidValue(*c.in.WaitTimeSeconds, "WaitTimeSeconds", ">= 0 and <= 20, if provided")
	}
	ctx, cancel := context.WithCancel(c.r.Context())
	defer cancel()
	defer context.AfterFunc(c.closing, cancel)()
	out := struct {
		Messages []sqsMessage `json:",omitempty" xml:"Message"`
	}{}
	names := append(c.in.AttributeNames, c.in.MessageSystemAttributeNames...)
	for _, m := range c.queue.receive(ctx, n, seconds(c.in.VisibilityTimeout, -1), wait) {
		out.Messages = append(out.Messages, sqsMessage{m.id, m.handle, md5Hex(m.body), m.body, attributes{
			"SenderId":                         "AIDAECRTEST",
			"SentTimestamp":                    strconv.FormatInt(m.sent.UnixMilli(), 10),
			"ApproximateReceiveCount":          itoa(m.received),
			"ApproximateFirstReceiveTimestamp": strconv.FormatInt(m.first.UnixMilli(), 10),
		}.only(names)})
	}
	return out, nil
}

func invalidValue(n int, name, want string) *sqsError {
	return sqsErr("InvalidParameterValue", "", "Value "+itoa(n)+" for parameter "+name+" is invalid. Reason: Must be "+want+".")
}

type sqsSent struct {
	ID        string `json:"Id,omitempty" xml:"Id,omitempty"`
	MessageID string `json:"MessageId" xml:"MessageId"`
	MD5       string `json:"MD5OfMessageBody" xml:"MD5OfMessageBody"`
}

func (c *sqsCall) send() (any, *sqsError) {
	if c.in.MessageBody == "" {
		return nil, sqsErr("MissingParameter", "", "The request must contain the parameter MessageBody.")
	}
	m := c.queue.send(c.in.MessageBody, time.Duration(c.in.DelaySeconds)*time.Second)
	return sqsSent{MessageID: m.id, MD5: md5Hex(m.body)}, nil
}

// batch checks the entries of a batch request.
func (c *sqsCall) batch() *sqsError {
	if len(c.in.Entries) == 0 {
		return sqsErr("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest", "There should be at least one entry in the request.")
	}
	if len(c.in.Entries) > 10 {
		return sqsErr("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10.")
	}
	return nil
}

func (c *sqsCall) sendBatch() (any, *sqsError) {
	if err := c.batch(); err != nil {
		return nil, err
	}
	out := struct {
		Successful []sqsSent      `xml:"SendMessageBatchResultEntry"`
		Failed     []batchFailure `xml:"BatchResultErrorEntry"`
	}{Failed: []batchFailure{}}
	for _, e := range c.in.Entries {
		m := c.queue.send(e.MessageBody, time.Duration(e.DelaySeconds)*time.Second)
		out.Successful = append(out.Successful, sqsSent{e.ID, m.id, md5Hex(m.body)})
	}
	return out, nil
}

type batchSuccess struct {
	ID string `json:"Id" xml:"Id"`
}

type batchFailure struct {
	ID          string `json:"Id" xml:"Id"`
	SenderFault bool
	Code        string
	Message     string
}

func (c *sqsCall) delete() (any, *sqsError) {
	c.queue.remove(c.in.ReceiptHandle)
	return empty{}, nil
}

func (c *sqsCall) deleteBatch() (any, *sqsError) {
	if err := c.batch(); err != nil {
		return nil, err
	}
	out := struct {
		Successful []batchSuccess `xml:"DeleteMessageBatchResultEntry"`
		Failed     []batchFailure `xml:"BatchResultErrorEntry"`
	}{Failed: []batchFailure{}}
	for _, e := range c.in.Entries {
		c.queue.remove(e.ReceiptHandle)
		out.Successful = append(out.Successful, batchSuccess{e.ID})
	}
	return out, nil
}

// maxVisibility is SQS's longest visibility timeout in seconds.
const maxVisibility = 43200

func notInFlight() *sqsError {
	return sqsErr("MessageNotInflight", "AWS.SimpleQueueService.MessageNotInflight", "The message referred to is not in flight.")
}

func (c *sqsCall) changeVisibility() (any, *sqsError) {
	t := seconds(c.in.VisibilityTimeout, -1)
	if t < 0 || t > maxVisibility*time.Second {
		return nil, sqsErr("InvalidParameterValue", "", "VisibilityTimeout must be between 0 and 43200 seconds.")
	}
	if !c.queue.hide(c.in.ReceiptHandle, t) {
		return nil, notInFlight()
	}
	return empty{}, nil
}

func (c *sqsCall) changeVisibilityBatch() (any, *sqsError) {
	if err := c.batch(); err != nil {
		return nil, err
	}
	out := struct {
		Successful []batchSuccess `xml:"ChangeMessageVisibilityBatchResultEntry"`
		Failed     []batchFailure `xml:"BatchResultErrorEntry"`
	}{Successful: []batchSuccess{}, Failed: []batchFailure{}}
	for _, e := range c.in.Entries {
		if e.VisibilityTimeout < 0 || e.VisibilityTimeout > maxVisibility || !c.queue.hide(e.ReceiptHandle, time.Duration(e.VisibilityTimeout)*time.Second) {
			f := notInFlight()
			out.Failed = append(out.Failed, batchFailure{e.ID, true, f.Type, f.Message})
			continue
		}
		out.Successful = append(out.Successful, batchSuccess{e.ID})
	}
	return out, nil
}
