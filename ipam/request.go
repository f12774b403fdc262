package ipam

import (
	"maps"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

// duplicate is an address in use here and elsewhere, and when that was last heard.
type duplicate struct {
	note Note
	seen time.Duration
}

// ask is the search for space in one range, on behalf of all who wait for it.
type ask struct {
	rng     addr.Range
	order   []peer.Name // whom to ask in this round, the most promising first
	cur     peer.Name   // who is being asked; zero: nobody
	id      uint64
	sent    time.Duration
	denied  map[peer.Name]string // who has nothing there, with their words
	pause   time.Duration        // no new round before
	wanted  time.Duration        // when somebody last asked for it
	running bool                 // a round is under way
	over    bool                 // a round has ended
	blocked bool                 // somebody did not answer in it
}

// given is the last grant to a peer: its question may come again if our answer was
// lost, and must not be answered twice with different space.
type given struct {
	id    uint64
	chunk addr.Range
}

// seek goes on looking for space in rng. It returns false while there is hope,
// true when a round has ended without any; then blockers says who did not answer.
func (c *core) seek(rng addr.Range) (over bool) {
	a := c.asks[rng]
	if a == nil {
		a = &ask{rng: rng, denied: map[peer.Name]string{}}
		c.asks[rng] = a
	}
	a.wanted = c.now
	if !c.heardAll() {
		return false
	}
	if !a.cur.IsZero() {
		if c.reach[a.cur] && c.now-a.sent < askTime {
			return false
		}
		a.cur = peer.Name{}
	}
	if !a.running && c.now >= a.pause {
		a.running = true
		a.order = c.ring.ChoosePeersToAskForSpace(c.self, rng, func(n peer.Name) uint64 { return c.members[n].Free }, c.rnd)
		clear(a.denied)
	}
	for len(a.order) > 0 {
		n := a.order[0]
		a.order = a.order[1:]
		if !c.reach[n] {
			continue
		}
		a.cur, a.id, a.sent = n, c.newID(), c.now
		q := &message{kind: kindAsk, id: a.id, rng: rng, ringID: idSum(c.ring.ID()), members: []ring.Member{c.record()}}
		if l := c.leases[rng.Start]; rng.Size() == 1 && l != nil && l.foreign {
			q.hop = 1
		}
		c.send(n, q)
		return false
	}
	if a.running {
		a.running, a.over, a.pause = false, true, c.now+askPause
		a.blocked = len(c.blockers(rng)) > 0
	}
	return a.over
}

// seekAfresh makes a new request hear what is so now, not what another was told a
// moment ago.
func (c *core) seekAfresh(rng addr.Range) {
	if a := c.asks[rng]; a != nil && !a.running {
		a.over, a.pause = false, c.now
	}
}

// blockers returns the owners of addresses in rng who did not say that they have
// none left.
func (c *core) blockers(rng addr.Range) (out []peer.Name) {
	a := c.asks[rng]
	for _, n := range slices.SortedFunc(maps.Keys(c.ring.Owners(rng)), peer.Name.Compare) {
		if n == c.self {
			continue
		}
		if a != nil {
			if _, ok := a.denied[n]; ok {
				continue
			}
		}
		out = append(out, n)
	}
	return out
}

// onAsk gives space away, if there is any to give.
func (c *core) onAsk(from peer.Name, m *message) {
	if c.ring == nil {
		return
	}
	if m.ringID != idSum(c.ring.ID()) {
		c.send(from, &message{kind: kindState, ring: ring.Delta{ID: c.ring.ID()}})
		return
	}
	if c.outdated(from, m) {
		c.deny(from, m, true)
		return
	}
	c.mergeState(from, &message{kind: kindState, members: m.members})
	if g := c.granted[from]; g.id == m.id && !c.hits(bugGrantTwice) {
		c.sendGrant(from, g)
		return
	}
	c.reclaimable(from, m.rng)
	chunk, ok := c.space.Donate(m.rng)
	if !ok && c.hits(bugGrantTwice) && c.space.Used(m.rng.Start) {
		chunk, ok = addr.Of(m.rng.Start), true
		c.space.Lose(chunk)
	}
	if !ok {
		c.deny(from, m, false)
		return
	}
	d, err := c.ring.Grant(c.self, chunk, from)
	if err != nil { // out of versions: it stays ours
		c.space.Gain(chunk, false)
		c.deny(from, m, false)
		return
	}
	if c.hits(bugKeepDonated) {
		c.space.Gain(chunk, false)
	}
	c.dirty.ring = !c.hits(bugSkipSaveGrant)
	c.changed()
	g := given{m.id, chunk}
	c.granted[from] = g
	c.note(Note{Kind: NoteGiven, Peer: from, Addrs: chunk.Prefixes(), Text: "gave space to " + c.nickOf(from)})
	c.sendGrant(from, g)
	c.spread(c.withOwners(&message{kind: kindState, ring: d}))
}

// outdated reports whether a question comes from a run of a peer that is over, or
// from one that does not know yet what is remembered of it.
func (c *core) outdated(from peer.Name, m *message) bool {
	if len(m.members) != 1 || m.members[0].Name != from {
		return true
	}
	now, known := m.members[0], c.members[from]
	f, fenced := c.ring.Fence(from)
	return fenced && f.Boot >= now.Boot || known.Boot > now.Boot || known.Boot == now.Boot && known.Run != now.Run
}

// withOwners adds to a message what is known of the owners in its ring: whoever
// hears that a peer owns something must know which run of it does.
func (c *core) withOwners(m *message) *message {
	seen := map[peer.Name]bool{}
	for _, e := range m.ring.Entries {
		if r, ok := c.members[e.Owner]; ok && !seen[e.Owner] && len(seen) < membersPerPart/10 {
			seen[e.Owner] = true
			m.members = append(m.members, r)
		}
	}
	return m
}

// reclaimable lets a peer have back at once an address that rests here because we
// have just taken it over from that peer, or another that was thought lost.
func (c *core) reclaimable(from peer.Name, rng addr.Range) {
	if rng.Size() != 1 || c.confirm != nil || c.fenced != "" || !c.space.Held(rng.Start) {
		return
	}
	c.space.Release(rng)
}

func (c *core) sendGrant(to peer.Name, g given) {
	d := ring.Delta{ID: c.ring.ID()}
	for _, e := range c.ring.Entries() {
		if in := e.Range.Intersect(g.chunk); !in.Empty() {
			d.Entries = append(d.Entries, ring.Entry{Range: in, Stamp: e.Stamp})
		}
	}
	c.send(to, &message{kind: kindGrant, id: g.id, rng: g.chunk, ring: d})
}

// deny answers that nothing is free. It shows our ring, as the asker may have an
// old one; hop 1 says that this may change soon.
func (c *core) deny(to peer.Name, m *message, outdated bool) {
	n := &message{kind: kindDeny, id: m.id, rng: m.rng}
	switch l := c.leases[m.rng.Start]; {
	case outdated:
		n.hop = 1
		if r, ok := c.members[to]; ok {
			n.members = []ring.Member{r}
		}
	case c.space.HeldIn(m.rng) > 0:
		n.hop = 1
	case m.rng.Size() == 1 && l != nil && !l.foreign:
		n.text = clip("in use by "+l.ident, maxText)
		if m.hop == 1 {
			c.double(l, to)
		}
	}
	n.ring = ring.Delta{ID: c.ring.ID()}
	for _, e := range c.ring.Entries() {
		if in := e.Range.Intersect(m.rng); !in.Empty() && len(n.ring.Entries) < entriesPerPart/2 {
			n.ring.Entries = append(n.ring.Entries, ring.Entry{Range: in, Stamp: e.Stamp})
		}
	}
	n.ring.Fences = c.ring.All().Fences
	c.send(to, c.withOwners(n))
}

func (c *core) onGrant(from peer.Name, m *message) {
	granted := addr.Range{}
	for _, a := range c.asks {
		if a.id == m.id && a.cur == from && a.rng.Covers(m.rng) {
			granted = m.rng
			a.cur = peer.Name{}
			a.order, a.running, a.pause, a.over = nil, false, c.now, false // there may be more
		}
	}
	c.mergeGranted(from, &message{kind: kindState, ring: m.ring}, granted)
}

func (c *core) onDeny(from peer.Name, m *message) {
	c.mergeState(from, &message{kind: kindState, ring: m.ring, members: m.members})
	for _, a := range c.asks {
		if a.id != m.id || a.cur != from {
			continue
		}
		a.cur = peer.Name{}
		if m.hop == 0 {
			a.denied[from] = m.text
			if a.denied[from] == "" {
				a.denied[from] = "nothing is free"
			}
			if l := c.leases[a.rng.Start]; a.rng.Size() == 1 && l != nil && l.foreign && m.text != "" {
				c.double(l, from)
			}
		}
	}
}

// double notes that an address is in use here and on another host. Each side hears
// of it again and again while it lasts.
func (c *core) double(l *lease, other peer.Name) {
	d, ok := c.doubles[l.addr]
	if !ok {
		if len(c.doubles) >= maxNotes {
			return
		}
		d.note = Note{Kind: NoteDouble, Peer: other, Nick: c.nickOf(other), Addrs: prefixes([]*lease{l}),
			Text: "address is in use by " + l.ident + " here and by a container on " + c.nickOf(other) + ": restart one of the two containers"}
		c.note(d.note)
	}
	d.seen = c.now
	c.doubles[l.addr] = d
}

// askForForeign asks the owners of addresses that are in use here to give them to
// us, a few at a time.
func (c *core) askForForeign() {
	if c.foreign == 0 || c.ring == nil || c.stopping {
		return
	}
	n := 0
	for _, l := range c.foreignLeases() {
		if !c.universe.Contains(l.addr) || c.now-l.asked < foreignAgain || n >= claimsAtOnce {
			continue
		}
		owner, _ := c.ring.Owner(l.addr)
		if owner == c.self { // ours in the ring, and not free: rests
			continue
		}
		l.asked = c.now
		n++
		c.seek(addr.Of(l.addr))
	}
}

// forgetAsks drops searches that nobody waits for any more.
func (c *core) forgetAsks() {
	for rng, a := range c.asks {
		if c.now-a.wanted > 2*requestTime {
			delete(c.asks, rng)
		}
	}
	for a, d := range c.doubles {
		if c.now-d.seen > 5*foreignAgain {
			delete(c.doubles, a)
		}
	}
}
