package ecr

import (
	"context"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// Identity is who a Registry calls as.
type Identity struct {
	ARN, Account string
	Skew         time.Duration // how far AWS's clock is ahead of ours
}

// Identity asks AWS who the caller is; nobody needs a permission for it.
func (r *Registry) Identity(ctx context.Context) (Identity, error) {
	out, err := sts.NewFromConfig(r.aws, func(o *sts.Options) { o.Retryer = aws.NopRetryer{} }).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return Identity{}, fmt.Errorf("identity at %s: %w", r.host, classify("GetCallerIdentity", err))
	}
	id := Identity{ARN: aws.ToString(out.Arn), Account: aws.ToString(out.Account)}
	server, ok := awsmiddleware.GetServerTime(out.ResultMetadata)
	at, answered := awsmiddleware.GetResponseAt(out.ResultMetadata)
	if ok && answered {
		id.Skew = server.Sub(at)
	}
	return id, nil
}
