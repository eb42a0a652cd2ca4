// Package ecr is one Amazon ECR private registry (an account in a region) through its control API: pulls are BatchGetImage
// and GetDownloadUrlForLayer, pushes are UploadLayerPart and PutImage, as in AWS's own
// amazon-ecr-containerd-resolver. So there is no 12-hour token, no dkr.ecr host to reach but for mounts, a broken upload goes
// on where it stopped, and every failure has a name. What ECR does differently from other registries is in quirks.go, each with its
// source; the meaning of its errors is the table in errors.go.
//
// Nothing is retried here but what only this package can retry: an upload part, whose bytes are in hand, and a layer URL
// that went stale. Everything else is for the caller, who knows who waits; the error's Class tells how.
//
// Permissions: reading takes ecr:BatchGetImage and ecr:GetDownloadUrlForLayer. Stat of a blob is one cheap call with
// ecr:BatchCheckLayerAvailability; without it, as under the managed policy AmazonEC2ContainerRegistryPullOnly, that call is
// made in vain and the layer host is asked.
//
// Limitations: a blob that was just uploaded can be opened only once a manifest refers to it (ECR's rule; Stat sees it at
// once). Empty blobs cannot be stored (ECR's rule). The setting BLOB_MOUNTING is that of the caller's own account, whichever
// Account is. Archived images are NotFound. ECR does not say how large a manifest is when it lists images: Catalog.Images leaves Descriptor.Size 0.
package ecr

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"golang.org/x/sync/singleflight"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Options of New. Only Host is needed where it is one of ECR's own host names.
type Options struct {
	Host    string // as pulls name it, e.g. 111122223333.dkr.ecr.us-west-2.amazonaws.com
	Account string // default: Host's; "" for any other host: the caller's own account
	Region  string // default: Host's; required for any other host

	// Front is the base URL of the registry's V2 front, which mounts go to; default: https://Host.
	Front    string
	Endpoint string // URL of the control API: a VPC endpoint or an emulator; it overrides Host's FIPS and dual-stack marks
	RoleARN  string // a role to assume with the credentials found
	Profile  string // of the shared AWS configuration

	AWS *aws.Config // nil: the SDK's default chain (environment, profile, container, instance); Profile is then read

	// HTTPClient fetches layers from presigned URLs. It must not add credentials; redirects are never followed. Nil: one of
	// the Registry's own, HTTP/1.1 only, without compression.
	HTTPClient *http.Client
	// Wrap is put around the transports of layers and of the control API; nil: nothing is.
	Wrap func(http.RoundTripper) http.RoundTripper
	// StallTimeout ends a layer download that yields no byte for so long; 0: 20 s.
	StallTimeout time.Duration
	// CallTimeout bounds one control call, not the wait for its turn; 0: 30 s (a part's upload has four times that).
	CallTimeout time.Duration

	// Limits is shared by all Registries of the process, for quotas are per account and region; nil: one of its own.
	Limits *Limits
	// Rates are calls per second that this process may make to the account and region, by the name that a quota has
	// ("PutImage"); those of several Registries that share Limits are the smallest. Default: half of ECR's default quota.
	Rates map[string]float64

	Settings RepositorySettings // of repositories that CreateRepository creates
	Logger   *slog.Logger       // one debug line per call; nil: none
}

// Registry is one ECR registry. It implements registry.Reader, Locator, Lister, Catalog, Writer, Deleter, Provisioner and
// Settler.
type Registry struct {
	host, account, region string

	api    *ecr.Client
	aws    aws.Config
	creds  *renewer
	limits *Limits
	layers *http.Client
	own    bool // layers is ours to close
	stall  time.Duration
	limit  time.Duration // of one call
	set    RepositorySettings
	log    *slog.Logger

	front     string // of mounts
	uploads   *uploads
	mounts    mounts
	urls      *urlCache
	flight    singleflight.Group
	manifests *manifestCache
	parts     sync.Pool // *[]byte of one upload part
}

// New returns the registry that o describes. ctx bounds the reading of the AWS configuration; no network is needed: the
// process starts with no upstream at all.
func New(ctx context.Context, o Options) (*Registry, error) {
	if o.Host == "" {
		return nil, registry.Errorf(registry.Invalid, "ecr: no registry host")
	}
	h, _ := ParseHost(o.Host)
	if o.Account == "" {
		o.Account = h.Account
	}
	if o.Region == "" {
		o.Region = h.Region
	}
	if o.Region == "" {
		return nil, registry.Errorf(registry.Invalid, "ecr %s: not one of ECR's host names: its region is needed", o.Host)
	}
	if o.Limits == nil {
		o.Limits = NewLimits()
	}
	cfg, cache, err := awsConfig(ctx, o, h)
	if err != nil {
		return nil, registry.Errorf(registry.Invalid, "ecr %s: %w", o.Host, err)
	}
	r := &Registry{
		host: o.Host, account: o.Account, region: o.Region, aws: cfg, creds: &renewer{cache: cache},
		limits: o.Limits, layers: o.HTTPClient, stall: o.StallTimeout, limit: o.CallTimeout,
		set: o.Settings, log: o.Logger, front: cmp.Or(o.Front, "https://"+o.Host), uploads: newUploads(), urls: newURLCache(), manifests: newManifestCache(),
	}
	for api, rate := range o.Rates {
		r.limits.ask(r.account, r.region, api, rate)
	}
	if r.stall <= 0 {
		r.stall = 20 * time.Second
	}
	if r.limit <= 0 {
		r.limit = 30 * time.Second
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.own = r.layers == nil; r.own {
		r.layers = layerClient()
	}
	r.layers = withoutRedirects(r.layers)
	if o.Wrap != nil {
		r.layers.Transport = o.Wrap(cmp.Or(r.layers.Transport, http.DefaultTransport))
	}
	r.api = ecr.NewFromConfig(cfg, func(e *ecr.Options) {
		e.Retryer = aws.NopRetryer{} // the caller retries: it knows who waits
		switch {
		case o.Endpoint != "":
			e.BaseEndpoint = &o.Endpoint
		default: // the SDK refuses these together with an endpoint
			if h.FIPS {
				e.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
			}
			if h.DualStack {
				e.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
			}
		}
	})
	return r, nil
}

// awsConfig returns what the SDK's clients take, and the cache of its credentials, if it has one.
func awsConfig(ctx context.Context, o Options, h Host) (aws.Config, *aws.CredentialsCache, error) {
	var cfg aws.Config
	if o.AWS != nil {
		cfg = o.AWS.Copy()
	} else {
		opts := []func(*config.LoadOptions) error{config.WithRegion(o.Region), config.WithCredentialsCacheOptions(refreshAhead)}
		if o.Profile != "" {
			opts = append(opts, config.WithSharedConfigProfile(o.Profile))
		}
		var err error
		if cfg, err = config.LoadDefaultConfig(ctx, opts...); err != nil {
			return cfg, nil, err
		}
	}
	cfg.Region = o.Region
	if o.RoleARN != "" {
		client := sts.NewFromConfig(cfg, func(s *sts.Options) {
			if h.FIPS {
				s.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
			}
		})
		cfg.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(client, o.RoleARN,
			func(a *stscreds.AssumeRoleOptions) { a.RoleSessionName = "ecr-mirror" }), refreshAhead)
	}
	cache, _ := cfg.Credentials.(*aws.CredentialsCache)
	if cfg.Credentials != nil {
		cfg.Credentials = &countedCredentials{CredentialsProvider: classedCredentials{cfg.Credentials}, host: o.Host, fetched: o.Limits.fetched}
	}
	if cfg.HTTPClient == nil {
		cfg.HTTPClient = awshttp.NewBuildableClient()
	}
	if o.Wrap != nil {
		cfg.HTTPClient = roundTripClient{o.Wrap(clientTransport{cfg.HTTPClient})}
	}
	cfg.HTTPClient = boundedClient{cfg.HTTPClient}
	return cfg, cache, nil
}

// String returns the registry's host.
func (r *Registry) String() string { return r.host }

// Close drops idle connections to layer hosts. Open content stays readable.
func (r *Registry) Close() error {
	if r.own {
		r.layers.CloseIdleConnections()
	}
	return nil
}
