package ipam

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"weave/internal/peer"
	"weave/ipam/addr"
)

// Status is what there is to see, at one moment.
type Status struct {
	State         string // as `status` prints it: idle, awaiting consensus …, ready …
	Ready         bool   // the range is divided and what is ours may be handed out
	Mode          Mode
	Range         netip.Prefix
	RangeSize     uint64
	DefaultSubnet netip.Prefix
	Seeds         []peer.Name // of the ring; nil: not divided yet

	Elector bool // of the election, which is over once Seeds is set
	Quorum  int
	Known   []peer.Name

	Shares  []Share // this peer first, then by name; nil: not divided yet
	Entries []Entry

	Active             uint64 // addresses in use on this host
	Owned, Free, Held  uint64 // addresses of this host; Held: not handed out for now
	Unreachable        uint64 // addresses of peers that are not reachable
	Leases             []Lease
	PendingClaims      []Pending
	PendingAllocations []Pending
	Conflicts          []Note // what is wrong now: other rings, duplicates, a copied identity
	Notes              []Note // what happened lately, oldest first
}

// Share is what a peer owns.
type Share struct {
	Peer      peer.Name
	Nick      string
	Addresses uint64
	Reachable bool // this peer is
}

// Entry is a range of the ring.
type Entry struct {
	Start   netip.Addr
	Size    uint64
	Peer    peer.Name
	Nick    string
	Known   bool // the mesh knows the peer now
	Epoch   uint32
	Version uint64
}

// Lease is an address in use on this host.
type Lease struct {
	Ident     string
	Prefix    netip.Prefix
	Container bool // freed when the container is gone
	Foreign   bool // of another host's share, or outside the range
}

// Pending is a request that waits.
type Pending struct {
	Ident  string
	Prefix netip.Prefix // the subnet, or the address
	Reason string
}

func (c *core) status() *Status {
	s := &Status{
		State: c.stateText(), Ready: c.usable(), Mode: c.init.Mode,
		Range: c.prefix, RangeSize: c.universe.Size(),
		Elector: c.paxos.Elector(), Quorum: c.quorum(), Known: c.paxos.Known(),
		Active: uint64(len(c.leases)),
		Notes:  slices.Clone(c.notes),
	}
	s.Owned, s.Free, s.Held = c.space.Sizes()
	for _, a := range slices.SortedFunc(maps.Keys(c.leases), addr.Addr.Compare) {
		l := c.leases[a]
		s.Leases = append(s.Leases, Lease{Ident: l.ident, Prefix: l.prefix(), Container: l.container, Foreign: l.foreign})
	}
	for _, o := range c.ops {
		p := Pending{Ident: o.ident, Prefix: o.prefix}
		switch o.kind {
		case opClaim:
			p.Reason = c.reason(o).Error()
			s.PendingClaims = append(s.PendingClaims, p)
		case opAllocate:
			p.Reason = c.reason(o).Error()
			s.PendingAllocations = append(s.PendingAllocations, p)
		}
	}
	c.statusOfRing(s)
	c.statusOfConflicts(s)
	return s
}

func (c *core) statusOfRing(s *Status) {
	if c.ring == nil {
		return
	}
	s.Seeds = c.ring.ID().Seeds
	owners := c.ring.Owners(c.universe)
	owners[c.self] += 0 // shown even if it owns nothing
	for _, n := range slices.SortedFunc(maps.Keys(owners), peer.Name.Compare) {
		sh := Share{Peer: n, Nick: c.nickOf(n), Addresses: owners[n], Reachable: n == c.self || c.reach[n]}
		if n == c.self {
			s.Shares = slices.Insert(s.Shares, 0, sh)
			continue
		}
		s.Shares = append(s.Shares, sh)
		if !sh.Reachable {
			s.Unreachable += sh.Addresses
		}
	}
	for _, e := range c.ring.Entries() {
		s.Entries = append(s.Entries, Entry{Start: e.Start.Netip(), Size: e.Size(), Peer: e.Owner, Nick: c.nickOf(e.Owner),
			Known: e.Owner == c.self || c.reach[e.Owner], Epoch: e.Epoch, Version: e.Version})
	}
}

func (c *core) statusOfConflicts(s *Status) {
	if c.fenced != "" {
		s.Conflicts = append(s.Conflicts, Note{Kind: NoteIdentity, Peer: c.self, Nick: c.nick, Text: c.fenced})
	}
	for _, n := range slices.SortedFunc(maps.Keys(c.conflicts), peer.Name.Compare) {
		s.Conflicts = append(s.Conflicts, Note{Kind: NoteConflict, Peer: n, Nick: c.nickOf(n), Text: c.conflictText(n)})
	}
	for _, a := range slices.SortedFunc(maps.Keys(c.doubles), addr.Addr.Compare) {
		s.Conflicts = append(s.Conflicts, c.doubles[a].note)
	}
}

// stateText is the line of `status`.
func (c *core) stateText() string {
	waiting := len(c.ops) > 0
	switch {
	case c.stopping:
		return "shutting down"
	case c.fenced != "":
		return "stopped: " + c.fenced
	case c.ring == nil && !waiting && c.now >= c.wanted && c.proposed < 0:
		return "idle"
	case c.ring == nil && c.paxos.Elector():
		return c.noQuorumState()
	case c.ring == nil:
		return "priming"
	case c.confirm != nil && c.stale:
		return "store of this host is lost or old: waiting for " + c.nicksOf(c.unheard())
	case c.confirm != nil:
		return "waiting for other peers to confirm what this host owns"
	case waiting && c.onlyUnreachable():
		return "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
	case waiting:
		return "waiting for IP(s) to become available"
	}
	return "ready"
}

func (c *core) noQuorumState() string {
	return "awaiting consensus (quorum: " + strconv.Itoa(c.quorum()) + ", known: " + strconv.Itoa(len(c.paxos.Known())) + ")"
}

// onlyUnreachable reports whether every owner is another peer that cannot be reached.
func (c *core) onlyUnreachable() bool {
	for n := range c.ring.Owners(c.universe) {
		if n == c.self || c.reach[n] {
			return false
		}
	}
	return true
}
