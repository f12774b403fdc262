package ipam

import (
	"maps"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/ring"
)

// electors returns how many peers will ever vote.
func (c *core) electors() int {
	if c.init.Electors > 0 {
		return c.init.Electors
	}
	return 1 + c.targets
}

func (c *core) quorum() int {
	q := c.electors()/2 + 1
	if c.hits(bugQuorumShort) {
		q--
	}
	return max(q, 1)
}

// elect asks for the range to be divided; for when somebody needs an address.
func (c *core) elect() {
	if c.ring != nil || c.stopping || c.fenced != "" {
		return
	}
	if !c.paxos.Elector() {
		c.askElectors()
		return
	}
	if !c.mayVote() {
		return
	}
	again := proposeTime + time.Duration(c.rnd.Int64N(int64(proposeTime)))
	if c.proposed >= 0 && c.now-c.proposed < again {
		return
	}
	c.proposed = c.now
	c.paxos.Enter()
	c.paxos.Propose()
	c.votesChanged()
}

// mayVote reports whether all that can be reached have said that they have no ring
// either. An elector that lost its disk has lost its vote as well: with one more it
// could complete an attempt that was overtaken long ago, if it met a peer that
// remembers that attempt before those who have the ring.
func (c *core) mayVote() bool {
	if !c.paxos.Elector() {
		return false
	}
	others := sortedNames(c.reach)
	c.syncWith(&c.hello, others)
	return len(c.unanswered(&c.hello, others)) == 0 || c.now-c.reachedNew >= helloTime
}

// askElectors is what an observer can do: tell everybody that a ring is wanted.
func (c *core) askElectors() {
	if c.now-c.wantSent < askPause {
		return
	}
	c.wantSent = c.now
	for _, n := range sortedNames(c.reach) {
		c.send(n, &message{kind: kindWant})
	}
}

// onWant: an observer needs a ring.
func (c *core) onWant(from peer.Name) {
	if c.ring != nil {
		c.sendAll(from, 0)
		return
	}
	if c.paxos.Elector() {
		c.wanted = c.now + requestTime
	}
}

func (c *core) votesChanged() {
	c.dirty.votes = true
	c.changed()
	c.spread(&message{kind: kindState, votes: c.paxos.Votes(), rng: c.universe})
}

// decide takes our part in a running election, and its result.
func (c *core) decide() {
	if c.ring != nil || c.stopping || c.fenced != "" {
		return
	}
	if c.now < c.wanted {
		c.elect()
	}
	for c.mayVote() && c.paxos.Think() {
		c.votesChanged()
	}
	v, ok := c.paxos.Decided()
	if !ok || !c.paxos.Elector() {
		return // an observer does not know how many electors there are; it hears of the ring
	}
	r, err := ring.New(ring.NewID(c.universe, v.Seeds, v.Nonce))
	if err != nil {
		return // votes are validated: cannot be
	}
	c.adopt(r, ringDecided)
	c.spread(c.all())
}

// noQuorum says why the range is not divided.
func (c *core) noQuorum() error {
	if !c.paxos.Elector() {
		return refuse(ErrNoQuorum, "no quorum: this host is an observer and waits for the others to divide the range")
	}
	var known []string
	for _, n := range c.paxos.Known() {
		known = append(known, c.nickOf(n))
	}
	text, ok := c.conflictAmong(slices.SortedFunc(maps.Keys(c.conflicts), peer.Name.Compare))
	if ok {
		text = "; " + text
	}
	return refuse(ErrNoQuorum, "no quorum: need %d of %d, know %s%s", c.quorum(), c.electors(), list(known), text)
}

func sortedNames(set map[peer.Name]bool) []peer.Name {
	out := make([]peer.Name, 0, len(set))
	for n, in := range set {
		if in {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, peer.Name.Compare)
	return out
}
