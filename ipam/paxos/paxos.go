// Package paxos lets the first peers of a network agree, once, on how its address
// range is divided among them.
//
// It is single-decree Paxos without messages of its own: each elector's [Vote] is
// gossiped, every peer keeps the latest vote of each, and [Node.Think] does what
// the votes known so far allow. As votes only move forward, they may be lost,
// doubled and reordered at will.
//
// # Rules
//
//	propose   promise oneself a ballot above all known
//	promise   whatever ballot is the highest known; lower ones are dead from then on
//	accept    own ballot, when a quorum has promised it: with the value of the highest
//	          ballot accepted by any, else with the electors known;
//	          or the promised ballot, when any elector has accepted it
//	decided   when a quorum has accepted one ballot
//
// Electors are told apart by their peer name, so one that restarts cannot count
// twice. Its vote must be in its store before it is sent ([Node.Votes] is all there
// is to store). An elector whose disk is lost takes its old vote back from the
// others' memory when it hears them; safety needs that fewer than a quorum of the
// electors have neither a ring nor a memory.
//
// The package is pure.
package paxos

import (
	"cmp"
	"maps"
	"slices"

	"weave/internal/peer"
)

// MaxElectors bounds how many votes are kept.
const MaxElectors = 1 << 10

// MaxRound is the highest round believed.
const MaxRound = 1 << 62

// Ballot numbers an attempt. The zero Ballot is below all.
type Ballot struct {
	Round uint64
	Name  peer.Name
	Run   peer.UID // so that a proposer without memory cannot number two attempts alike
}

// Compare orders ballots: round, name, run.
func (b Ballot) Compare(o Ballot) int {
	if c := cmp.Compare(b.Round, o.Round); c != 0 {
		return c
	}
	if c := b.Name.Compare(o.Name); c != 0 {
		return c
	}
	return cmp.Compare(b.Run, o.Run)
}

// IsZero reports that b is no attempt.
func (b Ballot) IsZero() bool { return b == Ballot{} }

// Value is what is decided on: among whom the range is divided.
type Value struct {
	Seeds []peer.Name // sorted
	Nonce uint64      // the proposer's Run: no two elections ever decide alike
}

func (v Value) compare(o Value) int {
	if c := slices.CompareFunc(v.Seeds, o.Seeds, peer.Name.Compare); c != 0 {
		return c
	}
	return cmp.Compare(v.Nonce, o.Nonce)
}

// Vote is where an elector stands. Promised never goes back, nor does Accepted.
type Vote struct {
	Elector  peer.Name
	Promised Ballot
	Accepted Ballot // zero: nothing yet
	Value    Value  // of Accepted
}

// join returns the later of both votes in each respect.
func (v Vote) join(o Vote) Vote {
	if v.Promised.Compare(o.Promised) < 0 {
		v.Promised = o.Promised
	}
	c := v.Accepted.Compare(o.Accepted)
	if c < 0 || c == 0 && v.Value.compare(o.Value) < 0 {
		v.Accepted, v.Value = o.Accepted, o.Value
	}
	return v
}

func (v Vote) equal(o Vote) bool {
	return v.Promised == o.Promised && v.Accepted == o.Accepted && v.Value.compare(o.Value) == 0
}

// Valid reports whether an elector can stand there.
func (v Vote) Valid() bool {
	return !v.Elector.IsZero() && v.Promised.Round <= MaxRound && v.Accepted.Round <= MaxRound &&
		v.Accepted.Compare(v.Promised) <= 0 && len(v.Value.Seeds) <= MaxElectors &&
		(v.Accepted.IsZero() || len(v.Value.Seeds) > 0)
}

// Node is one peer's part in the election. One goroutine owns it.
type Node struct {
	self    peer.Name
	run     peer.UID
	elector bool
	quorum  int // more than half of the electors there will ever be
	votes   map[peer.Name]Vote
}

// New makes a node. An observer (elector false) never votes but learns what was
// decided. quorum is how many electors decide.
func New(self peer.Name, run peer.UID, elector bool, quorum int) *Node {
	return &Node{self: self, run: run, elector: elector, quorum: quorum, votes: map[peer.Name]Vote{}}
}

// SetQuorum changes how many electors decide; for when that number is counted
// while peers are still being found.
func (n *Node) SetQuorum(q int) { n.quorum = q }

// Elector reports whether this node votes.
func (n *Node) Elector() bool { return n.elector }

// Votes returns all votes known, sorted by elector.
func (n *Node) Votes() []Vote {
	out := make([]Vote, 0, len(n.votes))
	for _, e := range slices.SortedFunc(maps.Keys(n.votes), peer.Name.Compare) {
		out = append(out, n.votes[e])
	}
	return out
}

// Known returns the electors heard of, this one included, sorted.
func (n *Node) Known() []peer.Name {
	known := slices.Collect(maps.Keys(n.votes))
	if n.elector {
		known = append(known, n.self)
	}
	slices.SortFunc(known, peer.Name.Compare)
	return slices.Compact(known)
}

// Enter makes this elector known to others, without proposing anything. It returns
// whether that is news.
func (n *Node) Enter() bool {
	if _, ok := n.votes[n.self]; ok || !n.elector {
		return false
	}
	n.votes[n.self] = Vote{Elector: n.self}
	return true
}

// Propose starts an attempt above all known ones. Observers do not.
func (n *Node) Propose() {
	if !n.elector {
		return
	}
	mine := n.votes[n.self]
	mine.Elector, mine.Promised = n.self, Ballot{n.highest().Round + 1, n.self, n.run}
	n.votes[n.self] = mine
}

func (n *Node) highest() (top Ballot) {
	for _, v := range n.votes {
		if top.Compare(v.Promised) < 0 {
			top = v.Promised
		}
	}
	return top
}

// Merge joins votes that came from another peer; it returns those that were news.
// Invalid ones are left out.
func (n *Node) Merge(votes []Vote) (news []Vote) {
	for _, v := range votes {
		old, ok := n.votes[v.Elector]
		if !v.Valid() || !ok && len(n.votes) >= MaxElectors {
			continue
		}
		old.Elector = v.Elector
		if j := old.join(v); !ok || !j.equal(old) {
			n.votes[v.Elector] = j
			news = append(news, j)
		}
	}
	return news
}

// Think does what the known votes allow and returns whether this elector's vote
// changed; then it has to be stored, and after that sent.
func (n *Node) Think() bool {
	if !n.elector {
		return false
	}
	before, existed := n.votes[n.self]
	mine := before
	mine.Elector = n.self
	if top := n.highest(); mine.Promised.Compare(top) < 0 {
		mine.Promised = top
	}
	if mine.Accepted.Compare(mine.Promised) < 0 {
		n.accept(&mine)
	}
	if existed && mine.equal(before) {
		return false
	}
	if !existed && mine.Promised.IsZero() {
		return false // nobody has proposed anything
	}
	n.votes[n.self] = mine
	return true
}

// accept takes part in the ballot that mine has promised, if it can.
func (n *Node) accept(mine *Vote) {
	promised := 0
	var best Vote
	for _, v := range n.votes {
		if v.Accepted == mine.Promised && !v.Accepted.IsZero() {
			mine.Accepted, mine.Value = v.Accepted, v.Value
			return
		}
		if v.Promised == mine.Promised {
			promised++
		}
		if best.Accepted.Compare(v.Accepted) < 0 {
			best = v
		}
	}
	own := Ballot{mine.Promised.Round, n.self, n.run}
	if mine.Promised != own || own.Round == 0 || promised < n.quorum {
		return
	}
	mine.Accepted, mine.Value = own, best.Value
	if best.Accepted.IsZero() {
		mine.Value = Value{Seeds: n.Known(), Nonce: uint64(n.run)}
	}
}

// Decided returns the value once a quorum accepted one ballot.
func (n *Node) Decided() (Value, bool) {
	count := map[Ballot]int{}
	for _, v := range n.votes {
		if v.Accepted.IsZero() {
			continue
		}
		count[v.Accepted]++
		if count[v.Accepted] >= n.quorum {
			return v.Value, true
		}
	}
	return Value{}, false
}
