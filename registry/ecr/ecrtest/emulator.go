package ecrtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// Options configures an Emulator. The zero value is an empty emulator in memory.
type Options struct {
	Accounts     []string           // 12-digit accounts that exist from the start; others appear with Credentials or Registry
	Dir          string             // where state is kept; "": in memory
	Clock        func() time.Time   // nil: time.Now. Expiry of tokens, URLs, uploads and messages; times in answers and events
	Log          *slog.Logger       // nil: none. One debug line per call
	PartSize     int64              // bytes that InitiateLayerUpload recommends; 0: 10 MiB. Parts but the last hold at least half
	LayerURL     string             // base URL of the layer host; "": what Start opened, else the host that the caller used
	CrossAccount bool               // every principal may act in every account; else Allow or a policy is needed
	Rates        map[string]float64 // calls per second of a control operation, per registry; see Quotas. Empty: no throttling
	Limits       map[string]int     // quotas on what exists, for tests: Repositories, ImagesPerRepository, TagsPerImage, LayerParts, PullThroughCacheRules. Absent: ECR's
	// Decisions is told of every permission check; nil: nobody. It must not call the Emulator.
	Decisions func(iam.Request, iam.Verdict)
	Events    EventQuality // how events get to their targets
	// ReplicationDelay is from a push to ECR's own replication of it, and before a backfill begins. 0: at once, in the background.
	ReplicationDelay time.Duration
	// Upstreams are what pull through cache rules find at a URL such as registry-1.docker.io; emulated ECR registries need no entry.
	Upstreams map[string]registry.Reader
	Quirks    Quirks
}

// Quirks switches behaviour where reports about ECR disagree or a test wants the easy answer. The zero value is what is best
// documented (facts: Amazon ECR User Guide and the threads named in the comments).
type Quirks struct {
	ServeUnreferenced  bool // give out layers that no manifest refers to; ECR answers LayerInaccessibleException
	LaxManifests       bool // accept manifests that ECR's strict schema refuses with 405 (subject.platform, annotated config)
	CreateOnPush       bool // a push creates the repository, as with a ROOT creation template for CREATE_ON_PUSH
	EmptyFinalPutFails bool // 500 for an empty PUT after several PATCHes (openai/tart#159)
	HangUpOnMissing    bool // an upload to a missing repository is hung up on instead of 404 (aws/containers-roadmap#1970)
	NoConversion       bool // a tag whose stored media type is not accepted is 404 instead of converted
	WrongRegion400     bool // a token of another region is a 400 instead of "expired"

	ReplicationEmitsPush bool // ECR's own replication also emits a PUSH at its destination
	TagDeleteFails       bool // 405 for a manifest's deletion by tag
	UploadDeleteFails    bool // 405 for the deletion of an upload session
	SinglePost           bool // a POST with a digest and a body is a whole upload, as in the OCI specification, instead of a session's begin
	NoImageTag           bool // events of pushes by digest have no image-tag instead of an empty one
	RetryAfter           int  // seconds that throttled answers name in Retry-After; 0: none
	MissingBlob400       bool // a layer that no image refers to is 400 on the v2 plane instead of 404
}

// Quotas returns ECR's default rates per second and registry, for Options.Rates. Source: Amazon ECR service quotas, 2026.
func Quotas() map[string]float64 {
	return map[string]float64{"GetAuthorizationToken": 500, "BatchGetImage": 2000, "GetDownloadUrlForLayer": 3000,
		"BatchCheckLayerAvailability": 1000, "InitiateLayerUpload": 100, "CompleteLayerUpload": 100, "UploadLayerPart": 500, "PutImage": 10}
}

// limit returns a quota on what exists.
func (e *Emulator) limit(name string, otherwise int) int {
	if n, ok := e.opt.Limits[name]; ok {
		return n
	}
	return otherwise
}

// Emulator is a set of ECR registries and SQS queues. Its methods are safe for concurrent use.
type Emulator struct {
	opt     Options
	content content
	key     []byte // signs tokens and layer URLs
	closing context.Context
	close   context.CancelFunc

	running sync.WaitGroup // replications, backfills, calls of API destinations

	mu         sync.Mutex
	principals map[string]*principal // by access key
	accounts   map[string]bool
	registries map[place]*Registry
	queues     map[queueID]*queue
	subs       map[place][]string
	trusts     map[[2]string][]iam.Document // of roles, by account and name
	keys       map[string][]iam.Document    // of KMS keys, by ARN
	buses      map[place]*bus
	fault      func(Call) Fault
	onEvent    func(Event) []Delivery
	calls      []Call
	counts     map[string]int // of calls, by their string
	listening  *listening
}

// place is where a registry is.
type place struct{ Account, Region string }

var (
	accountRE = regexp.MustCompile(`^\d{12}$`)
	regionRE  = regexp.MustCompile(`^[a-z]+(-[a-z]+)+-\d{1,2}$`)
)

// New returns an emulator with the state found in Options.Dir. The caller closes it.
func New(opt Options) (*Emulator, error) {
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.PartSize <= 0 {
		opt.PartSize = 10 << 20
	}
	e := &Emulator{opt: opt, content: newMemory(), key: make([]byte, 32), principals: map[string]*principal{}, accounts: map[string]bool{},
		registries: map[place]*Registry{}, queues: map[queueID]*queue{}, subs: map[place][]string{}, trusts: map[[2]string][]iam.Document{}, keys: map[string][]iam.Document{}, buses: map[place]*bus{}, counts: map[string]int{}}
	rand.Read(e.key)
	e.closing, e.close = context.WithCancel(context.Background())
	for _, a := range opt.Accounts {
		if !accountRE.MatchString(a) {
			return nil, fmt.Errorf("emulator: account %q: not 12 digits", a)
		}
		e.Credentials(a)
	}
	if opt.Dir != "" {
		if err := e.load(); err != nil {
			return nil, fmt.Errorf("emulator: load %s: %w", opt.Dir, err)
		}
	}
	return e, nil
}

// ValidPlace reports whether account and region have the form of AWS's: what Registry takes.
func ValidPlace(account, region string) bool {
	return accountRE.MatchString(account) && regionRE.MatchString(region)
}

// Registry returns the registry of an account in a region, both created when they are new. Names that are no account or
// region are a mistake of the caller's and panic.
func (e *Emulator) Registry(account, region string) *Registry {
	if !ValidPlace(account, region) {
		panic(fmt.Sprintf("ecrtest: no such registry: account %q, region %q", account, region))
	}
	e.Credentials(account)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.registryLocked(place{account, region})
}

func (e *Emulator) registryLocked(p place) *Registry {
	r := e.registries[p]
	if r == nil {
		r = &Registry{emu: e, place: p, repos: map[string]*repository{}, uploads: map[string]*upload{}, allowed: map[string]bool{},
			limits: map[string]*rate.Limiter{}, reads: map[digest.Digest][]*Read{}, registryFile: registryFile{Settings: map[string]string{}}}
		e.registries[p] = r
	}
	return r
}

// find returns the registry of a request; nil if the account does not exist. Regions of an account exist on demand.
func (e *Emulator) find(account, region string) *Registry {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.accounts[account] || !regionRE.MatchString(region) {
		return nil
	}
	return e.registryLocked(place{account, region})
}

func hashed(s string) string {
	h := sha256.Sum256([]byte("ecrtest " + s))
	return base64.StdEncoding.EncodeToString(h[:])[:40]
}

// Config returns an SDK configuration for the control API and SQS of a started emulator, with the account's credentials.
func (e *Emulator) Config(account, region string) aws.Config {
	c := e.Credentials(account)
	return aws.Config{Region: region, BaseEndpoint: aws.String(e.ControlURL()),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c, nil })}
}

func (e *Emulator) principal(key string) *principal {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.principals[key]
}

func (e *Emulator) now() time.Time { return e.opt.Clock() }

// uuid returns a random UUID (version 4).
func uuid() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
