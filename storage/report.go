package storage

import (
	"cmp"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Report is what the store holds, and what it is bringing.
type Report struct {
	Used, Limit int64 // bytes booked, those that fills have reserved included, and the most there may be
	Objects     int   // complete
	Partial     int   // of fills that run or were interrupted
	Fills       []FillReport
}

// FillReport is a fill that runs and whose size is known.
type FillReport struct {
	Digest     digest.Digest
	Size, Done int64 // bytes in all, and those that are there
	Readers    int   // that wait for it, or read along
}

// Report looks at every fill. The one with most left to do comes first.
func (s *Store) Report() Report {
	s.mu.Lock()
	r := Report{Used: s.space.used, Limit: s.space.limit, Objects: len(s.space.complete), Partial: len(s.space.partial)}
	fills := make([]*fill, 0, len(s.fills))
	for _, f := range s.fills {
		fills = append(fills, f)
	}
	s.mu.Unlock()
	for _, f := range fills {
		f.mu.Lock()
		if f.plan != nil && !f.ended {
			r.Fills = append(r.Fills, FillReport{f.digest, f.desc.Size, f.desc.Size - f.plan.left, f.readers + int(f.waiting.Load())})
		}
		f.mu.Unlock()
	}
	slices.SortFunc(r.Fills, func(a, b FillReport) int {
		return cmp.Or(-cmp.Compare(a.Size-a.Done, b.Size-b.Done), cmp.Compare(a.Digest, b.Digest))
	})
	return r
}
