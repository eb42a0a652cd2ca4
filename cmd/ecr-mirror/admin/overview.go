package admin

import (
	"context"
	"net/url"
	"slices"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// Mirror is a mirror as the page shows it.
type Mirror struct {
	Name         string                 `json:"name"` // in the keys of its jobs
	Source       string                 `json:"source"`
	Destinations []Destination          `json:"destinations"`
	Health       func() []mirror.Health `json:"-"`
	Upstreams    []Upstream             `json:"upstreams"` // filled in
}

// Destination is a place that a mirror replicates to.
type Destination struct {
	Name string `json:"name"` // in the keys of jobs
	Host string `json:"host"`
}

// Upstream is how the road to a registry is.
type Upstream struct {
	Name       string    `json:"name"` // source or destination
	Host       string    `json:"host"`
	State      string    `json:"state"` // up, down, left alone, unknown
	Since      time.Time `json:"since,omitzero"`
	AnsweredAt time.Time `json:"answeredAt,omitzero"`
	Error      string    `json:"error,omitempty"`
}

// Overview is what the page shows, and what GET /overview answers.
type Overview struct {
	Version   string       `json:"version"`
	StartedAt time.Time    `json:"startedAt"`
	Now       time.Time    `json:"now"`
	Ready     bool         `json:"ready"`
	Problems  []string     `json:"problems"`
	Mirrors   []Mirror     `json:"mirrors"`
	Copying   []Copy       `json:"copying"`
	Fetching  []Fetch      `json:"fetching"`
	Queue     Queue        `json:"queue"`
	Cache     Cache        `json:"cache"`
	Traffic   figures      `json:"traffic"`
	HitRate   float64      `json:"hitRate"` // of requests that the local tier answered, 0 to 1
	Saving    Saving       `json:"saving"`
	Letters   []DeadLetter `json:"deadLetters"`
	More      int          `json:"moreDeadLetters,omitempty"` // than those
	Images    []Image      `json:"images"`                    // of the mirror that the query asks for
	Next      string       `json:"next,omitempty"`            // the cursor of their next page, as the parameter after
	Query     imagesQuery  `json:"-"`
	Mirror    *Mirror      `json:"-"` // whose images are shown
	Who       visitor      `json:"-"`
	Purgeable []string     `json:"-"` // the names that a purge takes
	States    []string     `json:"-"` // that images can be in
	Cursor    bool         `json:"-"` // it is not the first page
	Notice    string       `json:"-"`
	Problem   string       `json:"-"`
}

// Copy is a job in work.
type Copy struct {
	Mirror      string    `json:"mirror"`
	Destination string    `json:"destination"` // its host
	Repository  string    `json:"repository"`
	Tag         string    `json:"tag,omitempty"`
	Digest      string    `json:"digest,omitempty"`
	Lane        string    `json:"lane"`
	Attempt     int       `json:"attempt"` // from 1
	Since       time.Time `json:"since"`
	Sent        int64     `json:"sentBytes"`
	Total       int64     `json:"totalBytes"` // as far as it is known
}

// Fetch is a download into the cache.
type Fetch struct {
	Digest  string `json:"digest"`
	Done    int64  `json:"doneBytes"`
	Total   int64  `json:"totalBytes"`
	Readers int    `json:"readers"`
}

// Cache is what the local store holds.
type Cache struct {
	Used    int64 `json:"usedBytes"`
	Limit   int64 `json:"limitBytes"`
	Objects int   `json:"objects"`
	Partial int   `json:"partialObjects"`
}

// Image is a row: an image with its status at each of the mirror's destinations.
type Image struct {
	Repository string `json:"repository"`
	Name       string `json:"name"` // a tag, or a digest
	At         []Cell `json:"at"`
}

// Cell is an image at a destination. State is "" where nothing is known of it.
type Cell struct {
	Destination string    `json:"destination"` // its host
	State       string    `json:"state"`
	Digest      string    `json:"digest,omitempty"`
	PushedAt    time.Time `json:"pushedAt,omitzero"`
	PullableAt  time.Time `json:"pullableAt,omitzero"`
	Lag         float64   `json:"lagSeconds,omitempty"`
	Attempts    int       `json:"attempts,omitempty"`
	NextAt      time.Time `json:"nextAt,omitzero"`
	Error       string    `json:"error,omitempty"`
	Bytes       int64     `json:"bytes,omitempty"`
}

// imagesQuery picks the images, as the parameters of the page say.
type imagesQuery struct {
	Mirror, Repository, Tag, State, After string
	Digests                               bool
}

func queryOf(q url.Values) imagesQuery {
	return imagesQuery{q.Get("mirror"), q.Get("repository"), q.Get("tag"), q.Get("state"), q.Get("after"), q.Get("digests") != ""}
}

// states are those of images, as replicate.Queue.Images has them.
var states = []string{replicate.Pending.String(), replicate.Leased.String(), replicate.Dead.String(), replicate.Conflict.String(), replicate.StatusDone, replicate.StatusFound}

// pageSize is how many images a page shows.
const pageSize = 25

// overview gathers all of it. An error is about the query.
func (p *page) overview(ctx context.Context, query url.Values) (*Overview, error) {
	now, snap := time.Now(), p.snapshots.get(ctx)
	v := &Overview{Version: p.o.Version, StartedAt: p.started, Now: now, Ready: true, Problems: []string{}, Queue: snap.Queue, Traffic: snap.Figures,
		Letters: append([]DeadLetter{}, snap.Letters...), More: snap.More, Query: queryOf(query), Problem: snap.Err, Copying: []Copy{}, Fetching: []Fetch{}, Images: []Image{}}
	if p.o.Ready != nil {
		v.Problems = append(v.Problems, p.o.Ready()...)
		v.Ready = len(v.Problems) == 0
	}
	for name := range p.o.Purge {
		if name != "" {
			v.Purgeable = append(v.Purgeable, name)
		}
	}
	slices.Sort(v.Purgeable)
	v.States, v.Cursor = states, v.Query.After != ""
	for _, m := range p.o.Mirrors {
		v.Mirrors = append(v.Mirrors, m.now())
	}
	if p.o.Workers != nil {
		for _, a := range p.o.Workers.Active() {
			v.Copying = append(v.Copying, p.copyOf(a))
		}
	}
	if p.o.Store != nil {
		v.stored(p.o.Store())
	}
	if n := v.Traffic.requests(); n > 0 {
		v.HitRate = float64(v.Traffic.tier("local").Requests) / float64(n)
	}
	v.Saving = savingOf(p.o.Prices, v.Traffic.served(), v.Traffic.tier("source").Read)
	return v, p.images(ctx, v)
}

// Requests is how many reads were answered well.
func (v *Overview) Requests() int64 { return v.Traffic.requests() }

// Served is how many bytes clients got.
func (v *Overview) Served() int64 { return v.Traffic.served() }

// DeadLetters is how many there are.
func (v *Overview) DeadLetters() int { return len(v.Letters) + v.More }

func (v *Overview) stored(r storage.Report) {
	v.Cache = Cache{r.Used, r.Limit, r.Objects, r.Partial}
	for _, f := range r.Fills {
		v.Fetching = append(v.Fetching, Fetch{f.Digest.String(), f.Done, f.Size, f.Readers})
	}
}

// now asks how the roads to the upstreams are.
func (m Mirror) now() Mirror {
	m.Upstreams = []Upstream{}
	if m.Health == nil {
		return m
	}
	for _, h := range m.Health() {
		host := m.Source
		if h.Name != "source" && len(m.Destinations) > 0 {
			host = m.Destinations[0].Host
		}
		m.Upstreams = append(m.Upstreams, Upstream{h.Name, host, h.State, h.Since, h.AnsweredAt, h.Err})
	}
	return m
}

// host is what a destination of a mirror is called by its registry; its name if the configuration has it no more.
func (p *page) host(mirror, destination string) string {
	for _, m := range p.o.Mirrors {
		for _, d := range m.Destinations {
			if m.Name == mirror && d.Name == destination {
				return d.Host
			}
		}
	}
	return destination
}

func (p *page) copyOf(a replicate.Active) Copy {
	digest := a.Hint
	if a.Tag == "" {
		digest = a.Digest
	}
	return Copy{a.Mirror, p.host(a.Mirror, a.Destination), a.Repo, a.Tag, digest.String(), a.Lane.String(), a.Attempts + 1, a.Since, a.Sent, a.Total}
}

// images adds the page of images that the query asks for.
func (p *page) images(ctx context.Context, v *Overview) error {
	if len(v.Mirrors) == 0 {
		return nil
	}
	i := max(0, slices.IndexFunc(v.Mirrors, func(m Mirror) bool { return m.Name == v.Query.Mirror }))
	v.Mirror = &v.Mirrors[i]
	q := replicate.ImageQuery{Mirror: v.Mirror.Name, Digests: v.Query.Digests, Repo: v.Query.Repository, Name: v.Query.Tag, State: v.Query.State,
		After: v.Query.After, Limit: pageSize}
	for _, d := range v.Mirror.Destinations {
		q.Destinations = append(q.Destinations, d.Name)
	}
	rows, next, err := p.o.Queue.Images(ctx, q)
	if err != nil {
		return err
	}
	v.Next = next
	for _, r := range rows {
		row := Image{Repository: r.Repo, Name: r.Name}
		for i, s := range r.At {
			row.At = append(row.At, cellOf(v.Mirror.Destinations[i].Host, s))
		}
		v.Images = append(v.Images, row)
	}
	return nil
}

func cellOf(host string, s replicate.Status) Cell {
	c := Cell{Destination: host, State: s.State, Digest: s.Content.String(), PushedAt: s.SeenAt, PullableAt: s.PullableAt, Attempts: s.Attempts,
		NextAt: s.NextAt, Error: s.Err, Bytes: s.Bytes}
	if !s.SeenAt.IsZero() && s.PullableAt.After(s.SeenAt) {
		c.Lag = s.PullableAt.Sub(s.SeenAt).Seconds()
	}
	return c
}
