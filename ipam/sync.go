package ipam

import (
	"maps"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

// origin says how we came by the ring.
type origin uint8

const (
	ringStored  origin = iota // from our store
	ringSeeded                // from the configured seeds; it may be older than we know
	ringDecided               // from an election
	ringLearned               // from another peer
)

// confirmation is the time during which what we own rests.
type confirmation struct {
	from  origin
	since time.Duration
	sync  syncing
}

// syncing is a question to others: what do you know, and here is what I changed.
type syncing struct {
	id    uint64
	sent  time.Duration
	delta ring.Delta
	parts map[peer.Name]uint64 // of an answer in several parts, those received
	acked map[peer.Name]bool
}

func (c *core) newSync(d ring.Delta) syncing {
	return syncing{id: c.newID(), sent: c.now - syncAgain, delta: d, parts: map[peer.Name]uint64{}, acked: map[peer.Name]bool{}}
}

// ask sends the question to those of peers that are reachable and have not
// answered, now and then.
func (c *core) syncWith(s *syncing, peers []peer.Name) {
	if c.now-s.sent < syncAgain {
		return
	}
	s.sent = c.now
	for _, n := range peers {
		if c.reach[n] && !s.acked[n] {
			c.send(n, &message{kind: kindSync, id: s.id, run: c.run, boot: c.boot, sum: c.ringSum(), ring: s.delta})
		}
	}
}

// unanswered returns those of peers that are reachable and have not answered.
func (c *core) unanswered(s *syncing, peers []peer.Name) (out []peer.Name) {
	for _, n := range peers {
		if c.reach[n] && !s.acked[n] {
			out = append(out, n)
		}
	}
	return out
}

// others returns all peers known to take part, except those given up for good. The
// caller must not change it.
func (c *core) others() []peer.Name {
	if !c.peersOK {
		c.peers, c.peersOK = slices.Clip(c.findOthers()), true
	}
	return c.peers
}

func (c *core) findOthers() []peer.Name {
	set := map[peer.Name]bool{}
	if c.ring != nil {
		for n := range c.ring.Owners(c.universe) {
			set[n] = true
		}
	}
	for n := range c.members {
		if c.ring == nil || !c.removed(n) {
			set[n] = true
		}
	}
	delete(set, c.self)
	return slices.SortedFunc(maps.Keys(set), peer.Name.Compare)
}

// removed reports whether an administrator gave up the latest known run of n.
func (c *core) removed(n peer.Name) bool {
	f, ok := c.ring.Fence(n)
	return ok && f.Boot >= c.members[n].Boot && !c.reach[n]
}

// adopt begins to use a ring, with all that we own in it at rest.
func (c *core) adopt(r *ring.Ring, from origin) {
	c.ring = r
	c.dirty.ring = true
	c.changed()
	c.confirm = &confirmation{from: from, since: c.now, sync: c.newSync(ring.Delta{})}
	for _, rng := range r.OwnedBy(c.self).Ranges() {
		c.gain(rng, false)
	}
	if from != ringStored {
		c.note(Note{Kind: NoteRing, Text: "address range is divided: " + r.ID().String()})
	}
}

// checkConfirm ends the rest of our space when it may end.
func (c *core) checkConfirm() {
	cf := c.confirm
	if cf == nil || c.stopping || c.fenced != "" {
		return
	}
	others := c.others()
	c.syncWith(&cf.sync, others)
	if !c.confirmed(others) && !c.hits(bugTrustStore) {
		return
	}
	c.confirm = nil
	c.space.Release(c.universe)
	if c.stale {
		c.note(Note{Kind: NoteReady, Text: "the other peers have confirmed what this host owns"})
	}
	c.stale = false
	c.reported = c.now - reportPause
	c.report()
}

// confirmed reports whether enough has been heard; see the package comment.
func (c *core) confirmed(others []peer.Name) bool {
	cf := c.confirm
	age := c.now - cf.since
	open := len(c.unanswered(&cf.sync, others))
	missing := 0
	for _, n := range others {
		if !cf.sync.acked[n] {
			missing++
		}
	}
	switch {
	case !c.reconciled && (c.stale || age < reconcileMax):
		return false
	case len(others) == 0 && cf.from == ringStored && c.targets > 0 && !c.stale:
		return age >= isolatedTime // somebody may have to tell us that we are a copy
	case missing == 0:
		return !c.stale || len(cf.sync.acked) > 0
	case c.stale:
		return len(c.unheard()) == 0
	case len(cf.sync.acked) > 0:
		return open == 0 && age >= settleTime
	case cf.from == ringLearned:
		return false
	}
	return open == 0 && age >= isolatedTime
}

// heardAll reports whether we know what others remember of us, as far as they can
// be reached: before that we ask them for nothing, lest they forget our last run.
func (c *core) heardAll() bool {
	if c.confirm == nil {
		return true
	}
	s := &c.confirm.sync
	return len(s.acked) > 0 && len(c.unanswered(s, c.others())) == 0
}

// unheard returns the owners in the ring that have not confirmed what we own.
func (c *core) unheard() (out []peer.Name) {
	for n := range c.ring.Owners(c.universe) {
		if n != c.self && !c.confirm.sync.acked[n] {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, peer.Name.Compare)
	return out
}

// heardOfSelf takes what others remember of us.
func (c *core) heardOfSelf(r ring.Member) {
	if r.Run == c.run || r.Boot < c.boot || c.hits(bugTrustStore) {
		return
	}
	c.boot = r.Boot + 1
	c.dirty.self = true
	if c.usable() && c.met {
		c.fenceOff("another daemon runs as peer " + c.self.String() +
			" with a copy of this host's state: give one of the two another --name, or weave reset it")
		c.announce()
		return
	}
	if !c.stale {
		c.stale = true
		c.note(Note{Kind: NoteStale, Text: "the store of this host is lost or old: its addresses rest until all owners have confirmed them"})
	}
	if c.ring != nil && c.confirm == nil {
		c.confirm = &confirmation{from: ringLearned, since: c.now, sync: c.newSync(ring.Delta{})}
		c.space.Hold(c.universe)
	}
}

// onSync answers with all we know.
func (c *core) onSync(from peer.Name, m *message) {
	if m.hasRing() {
		c.mergeState(from, &message{kind: kindState, ring: m.ring})
	}
	ack := &message{kind: kindAck, id: m.id, run: m.run, members: c.members.Sorted()}
	if c.ring != nil && c.ringSum() != m.sum {
		ack.ring = c.ring.All()
	}
	parts := ack.split()
	for i, p := range parts {
		q := *p
		q.part, q.parts = uint8(i), uint8(len(parts))
		c.send(from, &q)
	}
}

func (c *core) onAck(from peer.Name, m *message) {
	if m.run != c.run {
		return // to an earlier run of ours
	}
	c.mergeState(from, &message{kind: kindState, ring: m.ring, members: m.members})
	c.met = true
	for _, s := range c.syncs() {
		if s.id != m.id {
			continue
		}
		s.parts[from] |= 1 << (m.part % maxParts)
		if s.parts[from] == 1<<m.parts-1 {
			s.acked[from] = true
		}
	}
}

// syncs returns all questions that are open.
func (c *core) syncs() (out []*syncing) {
	out = append(out, &c.hello)
	if c.confirm != nil {
		out = append(out, &c.confirm.sync)
	}
	for _, r := range c.removals {
		out = append(out, &r.sync)
	}
	for _, t := range c.taken {
		out = append(out, &t.sync)
	}
	return out
}

// gain takes over a range that became ours. granted says that its former owner has
// just given it to this run, so that there is no doubt about it.
func (c *core) gain(r addr.Range, granted bool) {
	rest := c.fenced != "" || c.confirm != nil && !granted
	c.space.Gain(r, rest)
	if c.foreign == 0 {
		return
	}
	var back []*lease
	for _, l := range c.leasesIn(r) {
		if l.foreign && c.space.Claim(l.addr) {
			l.foreign = false
			c.foreign--
			delete(c.doubles, l.addr)
			back = append(back, l)
		}
	}
	if len(back) > 0 {
		c.note(Note{Kind: NoteRegained, Addrs: prefixes(back), Text: "addresses in use here belong to this host again"})
	}
}

// lose gives up a range that became another peer's. Containers keep what they have.
func (c *core) lose(r addr.Range, to peer.Name) {
	if c.hits(bugNoShrink) {
		return
	}
	c.space.Lose(r)
	var gone []*lease
	for _, l := range c.leasesIn(r) {
		switch {
		case l.dying || l.stored: // nobody uses it, as far as is known; an old store may have brought it back
			c.dropLease(l)
		case !l.foreign:
			l.foreign, l.asked = true, c.now-foreignAgain
			c.foreign++
			gone = append(gone, l)
		}
	}
	if len(gone) > 0 {
		c.house = c.now - houseTime
		c.note(Note{Kind: NoteLost, Peer: to, Addrs: prefixes(gone),
			Text: "addresses in use here now belong to " + c.nickOf(to) + ", asking for them back: was rmpeer used for a host that lives?"})
	}
}

// leasesIn returns the leases with addresses in r, in order.
func (c *core) leasesIn(r addr.Range) (out []*lease) {
	if r.Size() < uint64(len(c.leases)) {
		for a := r.Start; a.Less(r.End); a = a.Plus(1) {
			if l := c.leases[a]; l != nil {
				out = append(out, l)
			}
		}
		return out
	}
	for a, l := range c.leases {
		if r.Contains(a) {
			out = append(out, l)
		}
	}
	sortLeases(out)
	return out
}
