package ecrtest

import (
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// allowed reports whether the caller may do an operation, by its own policies and the queue's. A batch is authorized as its
// single operation is. A queue that is encrypted with a key of the customer's also takes the key's use: kms:Decrypt to
// receive, and to send kms:GenerateDataKey with kms:Decrypt, which verifies the data key (Amazon SQS Developer Guide, "Key management").
func (c *sqsCall) allowed(operation string) *sqsError {
	action := "sqs:" + strings.TrimSuffix(operation, "Batch")
	var policies []iam.Document
	key := ""
	if c.queue != nil {
		policies, key = c.queue.policies()
	}
	if c.opt.CrossAccount {
		policies = append(policies, iam.Document{Statement: []iam.Statement{{Effect: iam.Allow, Principal: &iam.Principal{AWS: iam.Strings{c.who.Account}},
			Action: iam.Strings{"sqs:*"}, Resource: iam.Strings{"*"}}}})
	}
	if v := c.decide(c.who.request(c.id.Region, action, c.id.arn(), c.id.Account), c.who.Policies, policies); !v.Allowed {
		return sqsErr("AccessDeniedException", "AccessDenied", "User: "+c.who.caller(c.id.Region)+" is not authorized to perform: "+
			strings.ToLower(action)+" on resource: "+c.id.arn()+" "+v.Why)
	}
	if key == "" {
		return nil
	}
	c.mu.Lock()
	policy, has := c.keys[key]
	c.mu.Unlock()
	owner := "" // a key without a policy leaves everybody to IAM
	if f := strings.Split(key, ":"); has && len(f) > 4 {
		owner = f[4]
	}
	for _, use := range map[string][]string{"sqs:ReceiveMessage": {"kms:Decrypt"}, "sqs:SendMessage": {"kms:GenerateDataKey", "kms:Decrypt"}}[action] {
		if v := c.decide(c.who.request(c.id.Region, use, key, owner), c.who.Policies, policy); !v.Allowed {
			return sqsErr("KmsAccessDenied", "KMS.AccessDeniedException", "User: "+c.who.caller(c.id.Region)+" is not authorized to perform: "+use+" on resource: "+key+" "+v.Why)
		}
	}
	return nil
}

// policies returns the queue's policy and the customer's key that encrypts it.
func (q *queue) policies() (docs []iam.Document, key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if text := q.attrs["Policy"]; text != "" {
		if d, err := iam.Parse(iam.Queue, []byte(text)); err == nil { // it was parsed when it was set
			docs = append(docs, d)
		}
	}
	if k := q.attrs["KmsMasterKeyId"]; strings.HasPrefix(k, "arn:") {
		key = k
	}
	return docs, key
}
