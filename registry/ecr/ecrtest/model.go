package ecrtest

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/time/rate"
)

// Registry is one account's ECR in one region.
type Registry struct {
	emu *Emulator
	place
	down, unreachable atomic.Bool

	mu      sync.Mutex
	repos   map[string]*repository
	uploads map[string]*upload // sessions do not survive a restart
	allowed map[string]bool    // accounts that may do everything here
	limits  map[string]*rate.Limiter

	readsMu sync.Mutex
	reads   map[digest.Digest][]*Read

	importing sync.Mutex // held during a pull through the cache; before mu
	backfills []*backfill

	registryFile // what is kept beside the repositories' own files
}

// repository is one repository, and what its JSON file keeps.
type repository struct {
	Name, UUID string
	CreatedAt  time.Time
	Mutability string
	Exclusions []exclusion `json:",omitempty"`
	Scan       struct {
		OnPush bool `json:"scanOnPush"`
	}
	Encryption  *encryption `json:",omitempty"`
	ResourceTag []resourceTag
	Policy      string               `json:",omitempty"`
	Lifecycle   string               `json:",omitempty"`
	EvaluatedAt time.Time            // when the lifecycle policy was last applied
	Cache       bool                 `json:",omitempty"` // holds images that came through a cache rule
	CheckedAt   map[string]time.Time `json:",omitempty"` // when the upstream was last asked for a tag
	Layers      map[digest.Digest]layer
	Images      map[digest.Digest]*image
	Tags        map[string]digest.Digest

	preview *preview // of a lifecycle policy; not kept
}

type exclusion struct {
	FilterType string `json:"filterType"`
	Filter     string `json:"filter"`
}

type resourceTag struct{ Key, Value string }

type layer struct {
	Size     int64
	PushedAt time.Time
}

type image struct {
	MediaType, ArtifactType string
	ManifestSize            int64
	Size                    int64 // layers and config; of an index that of the largest child
	Subject                 digest.Digest
	Layers, Children        []digest.Digest
	Annotations             map[string]string `json:",omitempty"`
	PushedAt, PulledAt      time.Time
	ScannedAt               time.Time
	Replicas                []replica `json:",omitempty"`
	Archived                bool      `json:",omitempty"`
	ArchivedAt, ActivatedAt time.Time
}

func (i *image) archive(yes bool, now time.Time) {
	if i.Archived = yes; yes {
		i.ArchivedAt = now
	} else {
		i.ActivatedAt = now
	}
}

// nameRE is the model's pattern for repository names.
var nameRE = regexp.MustCompile(`^(?:[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*/)*[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

func checkName(name string) error {
	if len(name) < 2 || len(name) > 256 || !nameRE.MatchString(name) {
		return invalidParameter("repositoryName", "must satisfy regular expression '(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*'")
	}
	return nil
}

// Allow lets every principal of account do everything in r, as a registry policy that names it would.
func (r *Registry) Allow(account string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.allowed[account] = true
}

// SetDown makes every call to r (control API, v2 plane, layer host) answer 503 while it is true.
func (r *Registry) SetDown(down bool) { r.down.Store(down) }

// SetUnreachable makes every call to r end without an answer while it is true.
func (r *Registry) SetUnreachable(un bool) { r.unreachable.Store(un) }

// repo returns a repository. The caller holds r.mu.
func (r *Registry) repo(name string) (*repository, error) {
	if p := r.repos[name]; p != nil {
		return p, nil
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	return nil, errf("RepositoryNotFoundException", "The repository with name '%s' does not exist in the registry with id '%s'", name, r.Account)
}

// pushRepo is repo for the start of a push, which may create the repository. The caller holds r.mu.
func (r *Registry) pushRepo(name string) (*repository, error) {
	p, err := r.repo(name)
	if err != nil && checkName(name) == nil && (r.emu.opt.Quirks.CreateOnPush || r.template(name, forPush) != nil) {
		return r.createFor(name, forPush)
	}
	return p, err
}

// CreateRepository creates a repository with default settings; one that exists is left as it is.
func (r *Registry) CreateRepository(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := checkName(name); err != nil || r.repos[name] != nil {
		return err
	}
	_, err := r.create(&repository{Name: name})
	return err
}

func (r *Registry) create(p *repository) (*repository, error) {
	if limit := r.emu.limit("Repositories", 100_000); len(r.repos) >= limit {
		return nil, errf("LimitExceededException", "The registry with id '%s' already has the maximum allowed number of repositories which is %d", r.Account, limit)
	}
	if p.Mutability == "" {
		p.Mutability = "MUTABLE"
	}
	p.UUID, p.CreatedAt = uuid(), r.emu.now()
	p.Layers, p.Images, p.Tags = map[digest.Digest]layer{}, map[digest.Digest]*image{}, map[string]digest.Digest{}
	if err := r.save(p); err != nil {
		return nil, err
	}
	r.repos[p.Name] = p
	return p, nil
}

// immutable reports whether tag of p may not move: a filter inverts the repository's setting for the tags it matches.
func (p *repository) immutable(tag string) bool {
	excluded := slices.ContainsFunc(p.Exclusions, func(x exclusion) bool {
		ok, _ := path.Match(x.Filter, tag) // the model admits no other metacharacter than *
		return ok
	})
	switch p.Mutability {
	case "IMMUTABLE":
		return true
	case "IMMUTABLE_WITH_EXCLUSION":
		return !excluded
	case "MUTABLE_WITH_EXCLUSION":
		return excluded
	}
	return false
}

// referenced reports whether an image of p holds layer d: until then ECR neither gives the layer out nor mounts it. archived is
// whether all that do are archived.
func (p *repository) referenced(d digest.Digest) (yes, archived bool) {
	archived = true
	for _, i := range p.Images {
		if slices.Contains(i.Layers, d) {
			yes, archived = true, archived && i.Archived
		}
	}
	return yes, yes && archived
}

// tagsOf returns the tags that name d, sorted.
func (p *repository) tagsOf(d digest.Digest) []string {
	var tags []string
	for t, td := range p.Tags {
		if td == d {
			tags = append(tags, t)
		}
	}
	slices.Sort(tags)
	return tags
}

func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		return "aws-eusc"
	case strings.HasPrefix(region, "us-iso-"):
		return "aws-iso"
	case strings.HasPrefix(region, "us-isob-"):
		return "aws-iso-b"
	case strings.HasPrefix(region, "eu-isoe-"):
		return "aws-iso-e"
	case strings.HasPrefix(region, "us-isof-"), strings.HasPrefix(region, "eu-isof-"):
		return "aws-iso-f"
	}
	return "aws"
}

// Host is the registry's host name at AWS.
func (r *Registry) Host() string {
	suffix := "amazonaws.com"
	switch partition(r.Region) {
	case "aws-cn":
		suffix = "amazonaws.com.cn"
	case "aws-eusc":
		suffix = "amazonaws.eu"
	case "aws-iso":
		suffix = "c2s.ic.gov"
	case "aws-iso-b":
		suffix = "sc2s.sgov.gov"
	case "aws-iso-e":
		suffix = "cloud.adc-e.uk"
	case "aws-iso-f":
		suffix = "csp.hci.ic.gov"
	}
	return r.Account + ".dkr.ecr." + r.Region + "." + suffix
}

// page returns the page of items that follows token, at most size long, and the token of the next. The order is that of the
// items' hashes: ECR lists in no order that a client could use.
func page[T any](items []T, key func(T) string, token string, size int) ([]T, string, error) {
	hash := func(t T) string {
		h := sha256.Sum256([]byte(key(t)))
		return base64.RawURLEncoding.EncodeToString(h[:])
	}
	slices.SortFunc(items, func(a, b T) int { return cmp.Compare(hash(a), hash(b)) })
	if token != "" {
		if b, err := base64.RawURLEncoding.DecodeString(token); err != nil || len(b) != sha256.Size {
			return nil, "", errf("InvalidParameterException", "Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid token'")
		}
		i, _ := slices.BinarySearchFunc(items, token, func(t T, token string) int { return cmp.Compare(hash(t), token) })
		if i < len(items) && hash(items[i]) == token {
			i++
		}
		items = items[i:]
	}
	if len(items) > size {
		return items[:size], hash(items[size-1]), nil
	}
	return items, "", nil
}
