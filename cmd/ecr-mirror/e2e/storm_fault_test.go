package e2e

import (
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

func hash(text string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(text)) // a hash takes everything
	return h.Sum64()
}

// fault says how a call fails while the storm rages: about one in twelve does. Those of the pushers do not.
func (s *storm) fault(c ecrtest.Call) ecrtest.Fault {
	if !s.raging.Load() || c.Region == sourceRegion && strings.Contains(c.Op, " ") && c.Op != "GET layer" {
		return ecrtest.Fault{}
	}
	r := rand.New(rand.NewPCG(s.seed, hash(c.String()+" "+strconv.Itoa(c.Nth))))
	if r.IntN(12) > 0 {
		return ecrtest.Fault{}
	}
	layer := c.Op == "GET layer"
	kinds := []ecrtest.Fault{
		{Status: http.StatusInternalServerError},
		{Status: http.StatusServiceUnavailable},
		{Status: http.StatusTooManyRequests},
		{HangUp: true},
		{Delay: time.Duration(r.Int64N(int64(1500 * time.Millisecond)))},
		{Damage: ecrtest.Cut, At: r.Int64N(2000)},
		{Damage: ecrtest.Reset, At: r.Int64N(2000)},
	}
	if r.IntN(20) == 0 { // what takes patience
		kinds = []ecrtest.Fault{
			{Delay: time.Duration(3+r.IntN(5)) * time.Second},
			{Damage: ecrtest.Stall, At: r.Int64N(200 << 10)},
		}
	} else if layer {
		kinds = append(kinds,
			ecrtest.Fault{Damage: ecrtest.Cut, At: r.Int64N(2 << 20)},
			ecrtest.Fault{Damage: ecrtest.Reset, At: r.Int64N(2 << 20)},
			ecrtest.Fault{Damage: ecrtest.Corrupt, At: r.Int64N(200 << 10)},
			ecrtest.Fault{Status: http.StatusForbidden, Code: "AccessDenied", Message: "Request has expired"},
			ecrtest.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://127.0.0.1:1/"}}},
		)
	} else {
		kinds = append(kinds,
			ecrtest.Fault{Status: http.StatusBadRequest, Code: "ThrottlingException"},
			ecrtest.Fault{Status: http.StatusBadRequest, Code: "ThrottlingException", After: true},
			ecrtest.Fault{Status: http.StatusInternalServerError, After: true},
			ecrtest.Fault{HangUp: true, After: true},
		)
		if c.Region != sourceRegion && c.Account == otherAccount { // there it has a role, whose sessions can be renewed
			kinds = append(kinds, ecrtest.Fault{Status: http.StatusBadRequest, Code: "ExpiredTokenException"})
		}
		if c.Op == "BatchGetImage" {
			kinds = append(kinds, ecrtest.Fault{Damage: ecrtest.Corrupt, At: r.Int64N(1500)})
		}
	}
	return kinds[r.IntN(len(kinds))]
}

// deliveries loses 5 % of the events and repeats 10 %; all are late by up to a second, and so overtake each other. Some come from clocks
// that are hours off. Deletions are not lost: nothing finds them again.
func (s *storm) deliveries(ev ecrtest.Event) []ecrtest.Delivery {
	d := ev.Detail
	name := d.Action + " " + d.Repository + ":" + d.Tag + "@" + d.Digest.String()
	s.events[name]++ // the emulator asks one after another
	r := rand.New(rand.NewPCG(s.seed, hash(name+strconv.Itoa(s.events[name]))))
	late := func() ecrtest.Delivery {
		if at, err := time.Parse(time.RFC3339, ev.Time); err == nil && r.IntN(10) == 0 {
			ev.Time = at.Add(time.Duration(r.IntN(13)-6) * time.Hour).Format(time.RFC3339)
		}
		return ecrtest.Delivery{Body: ev.Raw(), Delay: time.Duration(r.Int64N(int64(time.Second)))}
	}
	switch p := r.Float64(); {
	case p < .05 && d.Action != "DELETE":
		return nil
	case p < .15:
		return []ecrtest.Delivery{late(), late()}
	}
	return []ecrtest.Delivery{late()}
}
