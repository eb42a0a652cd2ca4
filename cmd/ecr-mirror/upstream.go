package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// upstream is a registry that can be a source or a destination.
type upstream interface {
	registry.Reader
	registry.Writer
	registry.Lister
	registry.Catalog
	registry.Deleter
}

// newUpstream returns the registry that c describes. Nothing is asked of it: the mirror starts with no upstream at all.
// base replaces the SDK's default chain of AWS credentials unless it is nil.
func newUpstream(ctx context.Context, c config.Registry, base *aws.Config, limits *ecr.Limits, log *slog.Logger) (upstream, error) {
	if !c.IsECR() {
		return remote.New(remote.Options{Registry: c.Registry, Insecure: c.Insecure, NS: c.NS, Username: c.Username, PasswordFile: c.PasswordFile})
	}
	front := ""
	if c.PlainHTTP() {
		front = "http://" + c.Host()
	}
	return ecr.New(ctx, ecr.Options{
		Host: c.Host(), Front: front, Account: c.Account, Region: c.Region, Endpoint: c.Endpoint,
		RoleARN: c.RoleARN, Profile: c.Profile, AWS: base, Limits: limits, Logger: log,
		Settings: ecr.RepositorySettings{TagMutability: c.Repositories.TagMutability, ScanOnPush: c.Repositories.ScanOnPush,
			Encryption: c.Repositories.Encryption, KMSKey: c.Repositories.KMSKey, Tags: c.Repositories.Tags},
		Rates: map[string]float64{
			"PutImage":                    float64(c.Rates.PutImage),
			"InitiateLayerUpload":         float64(c.Rates.InitiateLayerUpload),
			"UploadLayerPart":             float64(c.Rates.UploadLayerPart),
			"CompleteLayerUpload":         float64(c.Rates.CompleteLayerUpload),
			"BatchCheckLayerAvailability": float64(c.Rates.BatchCheckLayerAvailability),
			"BatchGetImage":               float64(c.Rates.BatchGetImage),
			"GetDownloadUrlForLayer":      float64(c.Rates.GetDownloadURLForLayer),
		},
	})
}

// newQueue returns a client of the SQS queue at queueURL: AWS's, a VPC endpoint's or an emulator's, whatever its host is. The
// region is the host's (sqs.REGION.amazonaws.com), else the source's.
func newQueue(ctx context.Context, queueURL string, source config.Registry, base *aws.Config) (*sqs.Client, error) {
	u, err := url.Parse(queueURL)
	if err != nil {
		return nil, fmt.Errorf("events queue: %w", err)
	}
	region := source.Region
	if labels := strings.Split(u.Hostname(), "."); labels[0] == "sqs" && len(labels) > 2 {
		region = labels[1]
	}
	var cfg aws.Config
	if base != nil {
		cfg = base.Copy()
	} else if cfg, err = awsconfig.LoadDefaultConfig(ctx, awsconfig.WithSharedConfigProfile(source.Profile)); err != nil {
		return nil, fmt.Errorf("events queue: %w", err)
	}
	if region != "" {
		cfg.Region = region
	}
	return sqs.NewFromConfig(cfg, func(o *sqs.Options) { o.BaseEndpoint = aws.String(u.Scheme + "://" + u.Host) }), nil
}
