package nameserver

import (
	"sync/atomic"

	"weave/nameserver/upstream"
)

// Result is how a question ended. The numbers are not a protocol; the words are
// labels of metrics.
type Result uint8

const (
	Answered  Result = iota // from the registry, with records
	Truncated               // from the registry, more than fits
	NoData                  // the name exists, without such records
	NXDomain                // nothing is called so in the domain
	Forwarded               // answered upstream
	Refused                 // the header or the question said no: format, opcode, class, type
	Failed                  // SERVFAIL: nobody upstream answered, or too much at once
	Looped                  // our own question came back
	results
)

var resultNames = [results]string{"answered", "truncated", "nodata", "nxdomain", "forwarded", "refused", "failed", "looped"}

// String is the label of weave_dns_questions_total.
func (r Result) String() string { return resultNames[r] }

// Drop is why something got no reply.
type Drop uint8

const (
	DropSource   Drop = iota // not a source that may ask here
	DropShort                // not even a header
	DropLong                 // longer than any question
	DropResponse             // a reply, not a question
	DropSend                 // the reply could not be sent
	DropConn                 // a TCP connection that made room for another one
	DropSlow                 // a TCP connection that was idle or trickled
	drops
)

var dropNames = [drops]string{"source", "short", "long", "response", "send", "conn", "slow"}

// String is the label of weave_dns_drops_total.
func (d Drop) String() string { return dropNames[d] }

// counters belong to a worker, which alone writes them on the hot path.
type counters struct {
	results [results]atomic.Uint64
	drops   [drops]atomic.Uint64
	_       [64]byte // workers do not share cache lines
}

// Counts are totals since the start, by label.
type Counts struct {
	Results  map[string]uint64 `json:"results"`
	Drops    map[string]uint64 `json:"drops"`
	Upstream map[string]uint64 `json:"upstream"` // what asking other servers took, see upstream.Stats
}

// Counts sums up all workers; every label is there, also with 0.
func (s *Server) Counts() Counts {
	c := Counts{Results: map[string]uint64{}, Drops: map[string]uint64{}, Upstream: map[string]uint64{}}
	s.mu.Lock()
	all := append([]*counters{&s.shared}, s.counters...)
	s.mu.Unlock()
	for _, w := range all {
		for r := range results {
			c.Results[r.String()] += w.results[r].Load()
		}
		for d := range drops {
			c.Drops[d.String()] += w.drops[d].Load()
		}
	}
	var u upstream.Stats
	if s.up != nil {
		u = s.up.Stats()
	}
	c.Upstream["asked"], c.Upstream["cached"], c.Upstream["joined"] = u.Asked, u.Cached, u.Joined
	c.Upstream["forged"], c.Upstream["suspect"], c.Upstream["silent"] = u.Forged, u.Suspect, u.Silent
	return c
}

// newCounters makes a worker's share; it is kept for the sum when the worker is gone.
func (s *Server) newCounters() *counters {
	c := &counters{}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counters = append(s.counters, c)
	return c
}
