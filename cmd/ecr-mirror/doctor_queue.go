package main

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

// queue asks how the queue of events is. Receiving takes a message that stays visible to others.
func (d *doctor) queue(ctx context.Context, m *config.Mirror) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	where := m.Events.SQS
	client, err := newQueue(ctx, where, m.Source, d.base)
	if err != nil {
		d.note(finding{Check: "queue", Where: where}, err)
		return
	}
	if !d.cfg.Works() {
		d.note(finding{Check: "queue", Where: where, What: "sqs:SendMessage"}, classed(events.Probe(ctx, client, where)))
		return
	}
	_, err = client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &where, MaxNumberOfMessages: 1, VisibilityTimeout: 0})
	d.note(finding{Check: "queue", Where: where, What: "sqs:ReceiveMessage"}, classed(err))
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &where, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		d.note(finding{Check: "queue", Where: where, What: "events.amazonaws.com may send"},
			registry.Errorf(registry.Internal, "the doctor alone needs sqs:GetQueueAttributes: %w", err))
		return
	}
	f := finding{Check: "queue", Where: where, What: "events.amazonaws.com may send", Detail: out.Attributes["ApproximateNumberOfMessages"] + " messages wait"}
	d.note(f, d.mayArrive(m, out.Attributes))
}

// mayArrive reports whether the queue's policy lets EventBridge's rule at the source send.
func (d *doctor) mayArrive(m *config.Mirror, attributes map[string]string) error {
	queue := attributes["QueueArn"]
	rule := "arn:" + partitionOf(m.Source) + ":events:" + m.Source.Region + ":" + m.Source.Account + ":rule/" + d.options.eventRule
	policy, err := iam.Parse(iam.Queue, []byte(attributes["Policy"]))
	if attributes["Policy"] != "" && err != nil {
		return registry.Errorf(registry.Internal, "the queue's policy: %w", err)
	}
	v := iam.Decide(iam.Request{ARN: "events.amazonaws.com", Action: "sqs:SendMessage", Resource: queue, Context: map[string]string{iam.SourceARN: rule,
		iam.SourceAccount: m.Source.Account}}, nil, []iam.Document{policy})
	if !v.Allowed {
		return registry.Errorf(registry.Denied, "the queue's policy does not let %s send: see iam-policy", rule)
	}
	return nil
}

// classed gives an error of the queue a class.
func classed(err error) error {
	if err == nil {
		return nil
	}
	class := registry.Unavailable
	if s := err.Error(); strings.Contains(s, "AccessDenied") || strings.Contains(s, "not authorized") || strings.Contains(s, "InvalidClientTokenId") {
		class = registry.Denied
	}
	return &registry.Error{Class: class, Err: err}
}
