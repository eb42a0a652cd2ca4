// Package mirror is the read path: one Reader over the local store, the destination and the source. Objects are immutable,
// so they come from wherever they are found first; tags move, so a policy decides who is asked and how long an answer lasts.
//
// A tag's authority (the source, unless told otherwise) is asked when the last answer is older than TTL. What it says:
//
//	an answer                   it is the answer, for TTL
//	NotFound                    gone: the answer is forgotten and the absence remembered for NegativeTTL
//	                            (from a destination that is the authority: the source is asked, for a destination lags)
//	Denied                      denied, even with an answer in memory
//	Throttled, Unavailable,     the other registry's answer, for NegativeTTL; else the last known answer until it is
//	no answer in ResolveTimeout StaleFor old; else the error: absence is never invented
//
// After three failures in a row an upstream is left alone for five seconds. Concurrent identical resolves are one upstream
// call, which no caller's leaving cancels. Events only invalidate; they never install a digest.
//
// A manifest that is local while its blobs are not is given out only if some upstream answers: one that did within the last
// thirty seconds, else one that is asked now. A client that pins an image to the registry of its manifest (podman, CRI-O) is
// so refused while it can still go elsewhere, at the HEAD of a tag as at the GET of a digest.
//
// Limitations: that an upstream answers says nothing of whether it has the blobs: registries refuse dangling manifests. What
// was reported of a tag is known for as long as the process runs; a manifest that is pulled by
// digest alone is reported only when its bytes come from the source, so a crash right then, or a client that leaves, loses it.
package mirror

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Authority is the registry whose word on a tag counts.
type Authority uint8

const (
	AuthoritySource      Authority = iota
	AuthorityDestination           // no cross-region call to learn what a tag names, at the price of its lag
)

// TagStore keeps the last known answers across restarts. Implementations log their own troubles: an answer that was not
// kept costs one upstream call. Safe for concurrent use.
type TagStore interface {
	// Load returns what tag last named and when an upstream said so.
	Load(repo, tag string) (registry.Descriptor, time.Time, bool)
	Save(repo, tag string, d registry.Descriptor, at time.Time) error
	Delete(repo, tag string) error // tag "": every tag of repo
}

// Miss is a manifest that a pull opened and that the destination may lack, or lack under this tag.
type Miss struct {
	Repo       string
	Tag        string // one that was resolved to it; "" if none was
	Descriptor registry.Descriptor
}

// Options of a Mirror. Objects and Source are required.
type Options struct {
	Name string // the mirror's name in metrics

	// Objects answers by digest: the local store over Tiers(Destination, Source), as the same values as below, so that
	// Content.From tells where content came from. Those made by NewUpstream tell the Mirror of outages that only reads by
	// digest meet.
	Objects             registry.Reader
	Source, Destination registry.Reader // Destination nil: cache only

	SourceLister, DestinationLister registry.Lister // either may be nil

	Tags           TagStore      // nil: known answers last as long as the process
	TTL            time.Duration // an answer's life; 0: 60 s, negative: ask every time
	StaleFor       time.Duration // the greatest age of an answer given during an outage; 0: 24 h, negative: none
	NegativeTTL    time.Duration // life of "gone" and of what the authority's stand-in said; 0: 5 s, negative: none
	ResolveTimeout time.Duration // for one upstream's answer while another answer is at hand; 0: 1 s
	Authority      Authority

	// Local reports whether the store has o complete. With it, a manifest is refused (Unavailable) while no upstream can
	// be reached unless its content is local, for some clients stay with the registry that gave them the manifest.
	Local func(o registry.Object) bool
	// Missed is told, while there is a destination, of every manifest that is opened from the source, and of every tag that the
	// source said names another manifest than before, once, when that manifest is opened: wherever it comes from, after a
	// restart anew. Resolves alone are not reported. An error has the tag reported again by the next pull. The pull waits for it.
	Missed func(Miss) error

	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now
}

// Mirror implements registry.Reader and registry.Lister. Safe for concurrent use.
type Mirror struct {
	opts      Options
	source    *Upstream
	authority *Upstream
	other     *Upstream // nil: nobody else to ask
	tags      *tags
	flights   singleflight.Group
	metrics   *metrics
}

// New returns a Mirror. It asks nobody: a Mirror starts without any upstream.
func New(o Options) *Mirror {
	positive := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = max(*d, 0)
	}
	positive(&o.TTL, time.Minute)
	positive(&o.StaleFor, 24*time.Hour)
	positive(&o.NegativeTTL, 5*time.Second)
	positive(&o.ResolveTimeout, time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	m := &Mirror{opts: o, tags: newTags(o.Tags, o.Logger), metrics: newMetrics(o.Name)}
	m.source = m.join("source", &m.opts.Source)
	m.authority = m.source
	if o.Destination != nil {
		m.other = m.join("destination", &m.opts.Destination)
		if o.Authority == AuthorityDestination {
			m.authority, m.other = m.other, m.authority
		}
	}
	m.metrics.watch(o.Name, m.authority, m.other)
	return m
}

// Invalidate has the next resolve of the tag ask upstream, and forgets that it was absent: what an event does. The last
// known answer stays at hand for an outage. Tag "" means every tag of repo.
func (m *Mirror) Invalidate(repo, tag string) {
	m.forgetFlights(m.tags.invalidate(repo, tag))
}

// Purge forgets the tag as if it had never been asked for, its last known answer included: what an operator does. Tag ""
// means every tag of repo. An error says that the store may remember.
func (m *Mirror) Purge(repo, tag string) error {
	keys, err := m.tags.purge(repo, tag)
	m.forgetFlights(keys)
	return err
}

// forgetFlights keeps calls that are under way from answering whoever asks from now on.
func (m *Mirror) forgetFlights(keys []string) {
	for _, key := range keys {
		for lane := registry.LaneClient; lane <= registry.LaneBackfill; lane++ {
			m.flights.Forget(flightKey(lane, key))
		}
	}
}

// Collectors returns the mirror's metrics.
func (m *Mirror) Collectors() []prometheus.Collector { return m.metrics.all }
