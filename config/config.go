// Package config is the configuration file: one YAML document. The comments on the fields below are its reference manual;
// a key that is not here is refused, and all problems are reported at once with their lines.
//
// Values may hold ${NAME}, which becomes that environment variable's value; a variable that is not set is a problem, and
// $${ stands for ${ itself. Durations are written 30s, 5m or 24h, sizes 500MB or 50GiB. Relative paths start at the
// configuration file's directory.
//
// Limitations: files other than rulesFile are not opened here, and no registry is asked. YAML merge keys are not supported.
package config

import (
	"time"

	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// Config is the whole file.
type Config struct {
	// Role is all; or, where several processes share a queue of events: front, which serves clients, only reads from registries and
	// hands what it misses to the workers by events.sqs; or worker, which replicates and serves no clients (listen takes
	// events.webhook alone, if there is one). The flag --role goes before it. Default: all.
	Role string `yaml:"role"`
	// Listen is where the registry listens, as host:port. Default: 127.0.0.1:5000. A host that is not loopback needs
	// client authentication (auth, or tls.clientCA), or auth.none: true, which says that none is meant; with credentials also
	// tls, or auth.insecure: true.
	Listen string `yaml:"listen"`
	// Admin is where a page for people, /metrics, /healthz, /readyz, /status and, for those whom adminAuth lets in, /dead-letters,
	// /purge, /plan, /sync and /debug/pprof/ listen; it never serves the registry. Default: 127.0.0.1:5001.
	Admin string `yaml:"admin"`
	// AdminAuth says who may change something through the admin port. Default: clients on this host alone.
	AdminAuth AdminAuth `yaml:"adminAuth"`
	// Costs are the prices by which the admin page estimates what the mirror saves.
	Costs Costs `yaml:"costs"`
	// TLS serves the registry over HTTPS. Default: plain HTTP.
	TLS *TLS `yaml:"tls"`
	// Auth says who may pull from mirrors that do not say so themselves. Default: anybody, which only a loopback listen allows.
	Auth Auth `yaml:"auth"`
	// Cache is the local store.
	Cache Cache `yaml:"cache"`
	// Mirrors are the upstreams; at least one. The first also answers requests that name no registry.
	Mirrors []Mirror `yaml:"mirrors"`
	// Limits bound what clients can have at once.
	Limits Limits `yaml:"limits"`
	// Log is what is written to standard error.
	Log Log `yaml:"log"`
	// Traces are OpenTelemetry spans of requests, calls to upstreams and replication jobs. Default: none are made.
	Traces *Traces `yaml:"traces"`
}

// TLS names PEM files; they are read again when they change.
type TLS struct {
	Cert string `yaml:"cert"` // the certificate with its chain; required
	Key  string `yaml:"key"`  // its private key; required
	// ClientCA has clients present a certificate that one of these signed. Default: clients need none.
	ClientCA string `yaml:"clientCA"`
}

// Auth holds at most one of none, htpasswd and ecr. Client certificates (tls.clientCA) come on top of any.
type Auth struct {
	// None says in as many words that anybody who reaches the listener may pull. Default: false.
	None bool `yaml:"none"`
	// HTPasswd is a file of users and bcrypt hashes, as htpasswd -B writes it. Default: none.
	HTPasswd string `yaml:"htpasswd"`
	// ECR lets in whoever has an ECR token (user AWS) that may read the repository: the registry that the client names is
	// asked, with that token, or the destination (without one, the source) if it names neither. Default: false.
	ECR bool `yaml:"ecr"`
	// OnOutage says what becomes of an ECR token while its registry cannot be asked. deny: it is refused once its last yes is
	// five minutes old. known: it is good until it expires if it was good before. Default: deny.
	OnOutage string `yaml:"onOutage"`
	// Insecure has clients send their credentials over plain HTTP to a listen that is not loopback: for what stands behind a
	// load balancer that speaks TLS. Default: false.
	Insecure bool `yaml:"insecure"`
}

// Limits bound what clients can have at once. A request over a limit is answered 503, so that its client goes to its next
// host; one that continues a download never is. A connection over a limit is closed.
type Limits struct {
	Requests int `yaml:"requests"` // answered at once. Default: 4096
	// RequestsPerClient is the same for one client address (of IPv6: a /64). Behind a load balancer or NAT that hides
	// addresses, all of them are one client. Default (0): a quarter of requests.
	RequestsPerClient int `yaml:"requestsPerClient"`
	Connections       int `yaml:"connections"` // open at once, idle ones included. Default: 16384
	// ConnectionsPerClient is the same for one client address, or IPv6 /64. Default (0): a quarter of connections.
	ConnectionsPerClient int `yaml:"connectionsPerClient"`
}

// Cache is the local store.
type Cache struct {
	Path string `yaml:"path"` // directory, created if absent. Default: /var/lib/ecr-mirror
	// Size is the most that the store keeps. Default (0): the smaller of 50GiB and a fifth of the filesystem.
	Size Size `yaml:"size"`
	// FillOnProbe has a read of a few bytes (a Range of at most 64 KiB, as lazy loaders send them first) bring the whole blob
	// into the store, and not only what it needs. Default: false.
	FillOnProbe bool `yaml:"fillOnProbe"`
}

// Mirror is a source, with the destination that its images are replicated to.
type Mirror struct {
	// Names are the registry hosts, as host or host:port, whose pulls it answers; no two mirrors share one.
	// Default: the hosts of source and destination.
	Names []string `yaml:"names"`
	// Source is where images are pushed to; required.
	Source Registry `yaml:"source"`
	// Destination is where pulls are served from, and what is replicated to. It may be the source of another mirror, even of
	// one that leads back. Default: none, the mirror only caches.
	Destination *Registry `yaml:"destination"`
	// Auth says who may pull from this mirror. Default: what the top-level auth says.
	Auth *Auth `yaml:"auth"`
	// Tags says how long an answer about a tag lasts.
	Tags Tags `yaml:"tags"`
	// Blobs says how blobs reach the client. proxy: from here. redirect: by a 307 to the destination's presigned URL (for an
	// hour good for whoever has it) if the destination, which has to be ECR, has the blob, and from here if not, or if the
	// request came over plain HTTP from another host or has headers that clients carry to where they are sent. It undoes a
	// private network path. Default: proxy.
	Blobs string `yaml:"blobs"`
	// Replication says what is copied to the destination.
	Replication Replication `yaml:"replication"`
	// Events says where pushes at the source are heard of. Default: nowhere, tags are as old as tags.ttl allows.
	Events Events `yaml:"events"`
}

// Registry is an ECR registry or any other. It is ECR if its host is one of ECR's, or if type says so.
type Registry struct {
	// Registry is the host, as host or host:port. A scheme may stand before it; the default is https://, and http:// needs
	// a loopback host or insecure: true. Required.
	Registry string `yaml:"registry"`
	// Type ecr makes a registry ECR whatever its host. Default: by the host.
	Type string `yaml:"type"`
	// RoleARN is assumed for every call (ECR). Default: the process's own identity.
	RoleARN string `yaml:"roleArn"`
	// Profile is taken from the AWS shared configuration (ECR). Default: the SDK's choice.
	Profile string `yaml:"profile"`
	// Endpoint is the URL of the ECR API: a VPC endpoint or the emulator (ECR). Default: the region's public one.
	Endpoint string `yaml:"endpoint"`
	// Region (ECR). Default: as the host says; required for any other host.
	Region string `yaml:"region"`
	// Account is the twelve-digit registry id (ECR). Default: as the host says; required for any other host.
	Account string `yaml:"account"`
	// Username, with passwordFile, logs in to a registry that is not ECR. Default: anonymous.
	Username string `yaml:"username"`
	// PasswordFile holds the password in its first line, and is read whenever it is needed. Default: anonymous.
	PasswordFile string `yaml:"passwordFile"`
	// NS names one of several registries behind a mirror, as containerd's ns parameter does: the registry is then itself
	// such a mirror, as a node's sidecar has the region's. Not for ECR. Default: none is sent.
	NS string `yaml:"ns"`
	// Insecure allows plain HTTP to a host that is not loopback. Default: false.
	Insecure bool `yaml:"insecure"`
	// Rates bound this process's calls (ECR). Quotas are per account and region: mirrors that share a registry share its
	// rates, the smallest of those they give.
	Rates Rates `yaml:"rates"`
	// Repositories are the settings of repositories that replication creates here (ECR).
	Repositories Repositories `yaml:"repositories"`
}

// Rates are calls per second, by the quota that ECR has for them. Each default is half of ECR's default quota, so that pushes
// from elsewhere have the other; give half of a quota that was raised. Throttling lowers a rate until it has passed.
type Rates struct {
	PutImage                    Rate `yaml:"putImage"`                    // one per manifest and tag written. Default: 5
	InitiateLayerUpload         Rate `yaml:"initiateLayerUpload"`         // one per blob written. Default: 50
	UploadLayerPart             Rate `yaml:"uploadLayerPart"`             // one per 10 MiB written. Default: 250
	CompleteLayerUpload         Rate `yaml:"completeLayerUpload"`         // one per blob written. Default: 50
	BatchCheckLayerAvailability Rate `yaml:"batchCheckLayerAvailability"` // one per up to 100 blobs that may be there already. Default: 500
	BatchGetImage               Rate `yaml:"batchGetImage"`               // one per manifest read or tag asked for. Default: 1000
	GetDownloadURLForLayer      Rate `yaml:"getDownloadUrlForLayer"`      // one per blob read, and per hour of reading it. Default: 1500
}

// Repositories are the settings of repositories that replication creates; those of a repository that exists are left alone, but by
// sync with replication.settings in mode converge.
type Repositories struct {
	TagMutability string            `yaml:"tagMutability"` // MUTABLE or IMMUTABLE. Default: MUTABLE
	ScanOnPush    bool              `yaml:"scanOnPush"`    // basic scanning. Default: false
	Encryption    string            `yaml:"encryption"`    // AES256, KMS or KMS_DSSE. Default: AES256
	KMSKey        string            `yaml:"kmsKey"`        // ARN, for KMS. Default: the AWS managed key
	Tags          map[string]string `yaml:"tags"`          // resource tags; takes ecr:TagResource. Default: none
}

// Tags says how long an answer about a tag lasts.
type Tags struct { // an explicit 0s reads back as a negative duration, which means the same to registry/mirror
	TTL      time.Duration `yaml:"ttl"`      // age at which the authority is asked again. Default: 60s; 0s: ask every time
	StaleFor time.Duration `yaml:"staleFor"` // greatest age of an answer given while nobody can be asked. Default: 24h; 0s: never
	// Authority is source or destination: whose word counts. The destination's costs no cross-region call, and lags.
	// Default: source.
	Authority string `yaml:"authority"`
}

// Replication says what is copied to the destination. Without rules and rulesFile everything is.
type Replication struct {
	// Rules want images by name; an image is copied if any rule, here or in rulesFile, wants it. Default: none.
	Rules []rules.Rule `yaml:"rules"`
	// RulesFile is ECR's replicationConfiguration, as `aws ecr describe-registry` prints it. Default: none.
	RulesFile string `yaml:"rulesFile"`
	// Destinations is own: the part of the rules that ends at this mirror's destination is run; or all: every part, so that
	// one mirror writes to several registries. Default: own.
	Destinations string `yaml:"destinations"`
	// Registries are further destinations, with how to reach them: in other partitions, with other credentials, or not ECR.
	// Rules name them by host. One that only rulesFile names needs no entry: it is reached as the source is, with the
	// process's own identity. Default: none.
	Registries []Registry `yaml:"registries"`
	// OnMiss copies what a pull had to take from the source, inside the rules. Default: true.
	OnMiss bool `yaml:"onMiss"`
	// Fronts is where the fronts answer, behind their load balancer: a worker takes blobs through them, and from the source when it
	// cannot, so that what a pull brings crosses regions once. It is no ECR registry; ns defaults to the first of names that is not
	// the destination's host. For workers alone: a process that serves clients would wait for itself. Default: none, a worker reads
	// from the source.
	Fronts *Registry `yaml:"fronts"`
	// Sweep is the time between comparisons of source and destination, which find what events lost and what was pushed before
	// there were any. A source that is not ECR has to answer /v2/_catalog. At least 1m. Default: 0s, off.
	Sweep time.Duration `yaml:"sweep"`
	// BytesPerDay bounds what is read from the source in a day (UTC), pulls included: when it is spent, sweeps and sync wait for
	// the next day; pulls and events go on, with a warning. Default: 0, no bound.
	BytesPerDay Size `yaml:"bytesPerDay"`
	// Deletes is ignore: what is deleted at the source stays; or propagate: it is deleted, after a while and with the
	// guards of deletion, where this mirror brought it. Default: ignore.
	Deletes  string   `yaml:"deletes"`
	Deletion Deletion `yaml:"deletion"`
	// Settings says what plan and sync do about settings of repositories that differ from the source's.
	Settings Settings `yaml:"settings"`

	// Set is all of the rules, for every destination; Mirror.Targets has the parts to run.
	Set *rules.Set `yaml:"-"`
}

// Settings says what becomes of the settings of repositories at destinations: tag mutability, encryption, lifecycle policy,
// repository policy and resource tags. What a destination's repositories say themselves goes before the source's.
type Settings struct {
	// Mode is show: plan and sync print what differs from the source; or converge: moreover sync sets it, and repositories that
	// replication creates are created with it. ECR to ECR only. Default: settings are not compared.
	Mode string `yaml:"mode"`
	// KMSKeys are the destinations' keys by the ARNs of the source's: an ARN, or alias/NAME in the destination's own account and
	// region. A repository whose key is not among them is not created by converge. Default: none.
	KMSKeys map[string]string `yaml:"kmsKeys"`
}

// Events says where pushes at the source are heard of.
type Events struct {
	// SQS is the URL of the queue that EventBridge's ECR events go to; no two mirrors share one. http:// needs a loopback
	// host or source.insecure. Default: none.
	SQS string `yaml:"sqs"`
	// Shared has several replicas work off the queue: a message is hidden while its job works and deleted when that is done,
	// so what a lost replica was at comes back for the others after a minute. It needs sqs:ChangeMessageVisibility. Without
	// it a message is deleted once its job is in the queue file under cache.path, and is that replica's. Default: false.
	Shared bool `yaml:"shared"`
	// Webhook receives events by HTTP on the registry's listener: from an EventBridge API destination, which needs a public
	// name with a certificate and cannot present one of its own (tls.clientCA), or notifications of Distribution if the
	// source is not ECR. Default: none.
	Webhook *Webhook `yaml:"webhook"`
}

// Webhook is where events are posted to.
type Webhook struct {
	// Path on the registry's listener; no two mirrors share one, and it is not within /v2/. Required.
	Path string `yaml:"path"`
	// TokenFile holds, in its first line, the token of at least 16 characters that senders show as "Authorization: Bearer
	// TOKEN" or "X-Api-Key: TOKEN"; it is read again when it changes. Required.
	TokenFile string `yaml:"tokenFile"`
	// Insecure has senders show the token over plain HTTP to a listen that is not loopback: for what stands behind a load
	// balancer that speaks TLS. Default: false.
	Insecure bool `yaml:"insecure"`
}

// Log is what is written to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn or error. Default: info
	Format string `yaml:"format"` // text or json. Default: text
}

// Traces says where spans are sent, by OTLP over HTTP. Clients cannot have theirs sampled: a traceparent counts only in requests that
// are sampled anyway.
type Traces struct {
	// Endpoint is the collector's base URL, as http://127.0.0.1:4318; /v1/traces is below it. Headers that it wants, as
	// credentials, are taken from the environment: OTEL_EXPORTER_OTLP_HEADERS. Required.
	Endpoint string `yaml:"endpoint"`
	Sample   Share  `yaml:"sample"` // the share of requests and jobs that have spans, more than 0 and up to 1. Default: 0.01
}

func (c *Config) setDefaults() {
	*c = Config{Role: RoleAll, Costs: defaultCosts, Listen: "127.0.0.1:5000", Admin: "127.0.0.1:5001", Cache: Cache{Path: "/var/lib/ecr-mirror"},
		Limits: Limits{Requests: 4096, Connections: 16384}, Log: Log{Level: "info", Format: "text"}}
}

func (m *Mirror) setDefaults() {
	*m = Mirror{Tags: Tags{TTL: time.Minute, StaleFor: 24 * time.Hour, Authority: "source"}, Blobs: "proxy",
		Replication: Replication{Destinations: "own", OnMiss: true, Deletes: "ignore", Deletion: Deletion{Grace: 24 * time.Hour, PerRun: 100, Interval: time.Hour}}}
}

// AuthOf returns who may pull from m.
func (c *Config) AuthOf(m *Mirror) Auth {
	if m.Auth != nil {
		return *m.Auth
	}
	return c.Auth
}

// credentials reports whether clients send a password or a token.
func (a Auth) credentials() bool { return a.HTPasswd != "" || a.ECR }

// Own returns the mirror's destination as rules name it; the zero value if it has none.
func (m *Mirror) Own() rules.Destination {
	if m.Destination == nil {
		return rules.Destination{}
	}
	return m.Destination.place()
}
