package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/trace"
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

// upstreams is what all registries of a process have in common. The zero value works.
type upstreams struct {
	aws    *aws.Config            // nil: the SDK's default chain of credentials
	limits *ecr.Limits            // nil: each registry has its own
	tokens *prometheus.CounterVec // fetched, by registry and result; nil: not counted
	traces *trace.Tracer          // nil: off
	log    *slog.Logger           // nil: none
}

// newTokens returns what upstreams count tokens in.
func newTokens() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ecr_mirror_token_fetches_total",
		Help: "Bearer tokens asked for at registries that are not ECR, by registry and result: ok, or the class of the error."}, []string{"registry", "result"})
}

// open returns the registry that c describes. Nothing is asked of it: the mirror starts with no upstream at all.
func (u upstreams) open(ctx context.Context, c config.Registry) (upstream, error) {
	if !c.IsECR() {
		o := remote.Options{Registry: c.Registry, Insecure: c.Insecure, NS: c.NS, Username: c.Username, PasswordFile: c.PasswordFile}
		if u.tokens != nil {
			o.Fetched = func(err error) { u.tokens.WithLabelValues(c.Host(), registry.Result(err)).Inc() }
		}
		o.Wrap = u.wrap()
		return remote.New(o)
	}
	front := ""
	if c.PlainHTTP() {
		front = "http://" + c.Host()
	}
	return ecr.New(ctx, ecr.Options{
		Host: c.Host(), Front: front, Account: c.Account, Region: c.Region, Endpoint: c.Endpoint,
		RoleARN: c.RoleARN, Profile: c.Profile, AWS: u.aws, Limits: u.limits, Wrap: u.wrap(), Logger: u.log,
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

// wrap is what is put around the transports.
func (u upstreams) wrap() func(http.RoundTripper) http.RoundTripper {
	if u.traces == nil {
		return nil
	}
	return u.traces.Upstream
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
