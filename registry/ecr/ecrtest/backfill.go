package ecrtest

import (
	"cmp"
	"slices"
	"time"
)

// Replication backfills (API: StartReplicationBackfill, October 2026): one run over what a destination's rules match and was
// there before them. They are forgotten when the emulator ends.

const (
	maxBackfills     = 10                  // running at once in a registry
	backfillKept     = 90 * 24 * time.Hour // after its end
	backfillJudgedAt = 100                 // processed images, from which on half of them failing fails it all
)

type backfill struct {
	ID          string           `json:"replicationBackfillId"`
	Destination destination      `json:"destination"`
	Status      string           `json:"status"` // PREPARING, IN_PROGRESS, then COMPLETE, FAILED, or STOPPING and STOPPED
	StartedAt   epoch            `json:"startedAt"`
	EndedAt     *epoch           `json:"endedAt,omitempty"`
	FailureCode string           `json:"failureCode,omitempty"`
	Progress    *progress        `json:"progress,omitempty"`
	results     []backfillResult // of images, in the order of their replication
}

type progress struct {
	Total        int      `json:"totalReplicationCount"`
	Completed    int      `json:"completedReplicationCount"`
	Failed       int      `json:"failedReplicationCount"`
	FailureCodes []string `json:"failureCodes,omitempty"`
}

type backfillResult struct {
	Repository string   `json:"repositoryName"`
	ImageID    imageID  `json:"imageId"`
	Status     string   `json:"status"`
	Code       string   `json:"failureCode,omitempty"`
	SubCodes   []string `json:"subImageFailureCodes,omitempty"`
}

func (b *backfill) running() bool { return b.EndedAt == nil }

// head is what every operation says of a backfill.
func (b *backfill) head(r *Registry) map[string]any {
	return map[string]any{"registryId": r.Account, "replicationBackfillId": b.ID, "destination": b.Destination, "startedAt": b.StartedAt, "status": b.Status}
}

func startBackfill(c call, in struct {
	Destination destination `json:"destination"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := slices.ContainsFunc(c.Replication.Rules, func(r replicationRule) bool { return slices.Contains(r.Destinations, in.Destination) })
	if !known {
		return nil, errf("ValidationException", "The destination is not in the replication configuration of the registry with id '%s'", c.Account)
	}
	running := 0
	for _, b := range c.backfills {
		if !b.running() {
			continue
		}
		if running++; b.Destination.Region == in.Destination.Region {
			return nil, errf("ReplicationBackfillInProgressException", "A replication backfill is already in progress for the destination region '%s'", in.Destination.Region)
		}
	}
	if running >= maxBackfills {
		return nil, errf("LimitExceededException", "The registry with id '%s' has %d replication backfills in progress", c.Account, running)
	}
	b := &backfill{ID: uuid(), Destination: in.Destination, Status: "PREPARING", StartedAt: epoch(c.emu.now())}
	c.backfills = append(c.backfills, b)
	c.emu.running.Go(func() { c.runBackfill(b) })
	return b.head(c.Registry), nil
}

// runBackfill copies one image after the other.
func (r *Registry) runBackfill(b *backfill) {
	ok := r.emu.pause(r.emu.opt.ReplicationDelay)
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		at := epoch(r.emu.now())
		b.EndedAt = &at
	}()
	if !ok || b.Status == "STOPPING" {
		b.Status = "STOPPED"
		return
	}
	var todo []backfillResult
	for _, p := range r.repos {
		if !slices.Contains(r.Replication.destinations(p.Name), b.Destination) {
			continue
		}
		for _, id := range p.list(imageFilter{}) {
			todo = append(todo, backfillResult{Repository: p.Name, ImageID: id})
		}
	}
	slices.SortFunc(todo, func(a, b backfillResult) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.ImageID.String(), b.ImageID.String()))
	})
	b.Status, b.Progress = "IN_PROGRESS", &progress{Total: len(todo)}
	for _, one := range todo {
		r.mu.Unlock()
		one.Code = r.copyTo(b.Destination, one.Repository, one.ImageID.ImageDigest, one.ImageID.ImageTag)
		r.finish(one.Repository, one.ImageID.ImageDigest, b.Destination, one.Code)
		r.mu.Lock()
		if b.Status == "STOPPING" || r.emu.closing.Err() != nil {
			b.Status = "STOPPED"
			return
		}
		if b.add(one); b.Progress.Failed*2 >= len(b.results) && len(b.results) >= backfillJudgedAt {
			b.Status, b.FailureCode = "FAILED", b.Progress.FailureCodes[0]
			return
		}
	}
	b.Status = "COMPLETE"
}

func (b *backfill) add(one backfillResult) {
	one.Status = "COMPLETE"
	if one.Code == "" {
		b.Progress.Completed++
	} else {
		one.Status = "FAILED"
		b.Progress.Failed++
		if !slices.Contains(b.Progress.FailureCodes, one.Code) {
			b.Progress.FailureCodes = append(b.Progress.FailureCodes, one.Code)
		}
	}
	b.results = append(b.results, one)
}

// backfill returns one that ended not too long ago. The caller holds r.mu.
func (r *Registry) backfill(id string) (*backfill, error) {
	r.backfills = slices.DeleteFunc(r.backfills, func(b *backfill) bool {
		return !b.running() && r.emu.now().Sub(time.Time(*b.EndedAt)) > backfillKept
	})
	for _, b := range r.backfills {
		if b.ID == id {
			return b, nil
		}
	}
	return nil, errf("ReplicationBackfillNotFoundException", "The replication backfill with id '%s' does not exist in the registry with id '%s'", id, r.Account)
}

func describeBackfill(c call, in struct {
	paging
	ID     string `json:"replicationBackfillId"`
	Filter string `json:"resultStatusFilter"`
}) (any, error) {
	size, err := in.size(100, 1000)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.backfill(in.ID)
	if err != nil {
		return nil, err
	}
	out := b.head(c.Registry)
	if b.Progress != nil {
		p := *b.Progress // it goes on changing
		out["progress"] = p
	}
	if b.running() {
		return out, nil
	}
	found := slices.DeleteFunc(slices.Clone(b.results), func(r backfillResult) bool { return in.Filter != "" && r.Status != in.Filter })
	found, next, err := page(found, func(r backfillResult) string { return r.Repository + r.ImageID.String() }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	out["endedAt"], out["results"] = b.EndedAt, found
	if b.FailureCode != "" {
		out["failureCode"] = b.FailureCode
	}
	if next != "" {
		out["nextToken"] = next
	}
	return out, nil
}

func listBackfills(c call, in paging) (any, error) {
	size, err := in.size(25, 50)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backfill("") // forgets the old ones
	all := []backfill{}
	for _, b := range c.backfills {
		one := *b
		if b.Progress != nil {
			p := *b.Progress
			one.Progress = &p
		}
		all = append(all, one)
	}
	all, next, err := page(all, func(b backfill) string { return b.ID }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	out := paged("backfills", all, next)
	out["registryId"] = c.Account
	return out, nil
}

func stopBackfill(c call, in struct {
	ID string `json:"replicationBackfillId"`
}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := c.backfill(in.ID)
	if err != nil {
		return nil, err
	}
	if !b.running() || b.Status == "STOPPING" {
		return nil, errf("ReplicationBackfillInvalidStatusException", "The replication backfill with id '%s' is %s", b.ID, b.Status)
	}
	b.Status = "STOPPING"
	return b.head(c.Registry), nil
}
