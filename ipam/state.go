package ipam

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/bits"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/ring"
)

// evMessage is a message from a peer, well formed.
type evMessage struct {
	from peer.Name
	msg  *message
}

func (e evMessage) apply(c *core) {
	if e.from == c.self {
		return
	}
	m := e.msg
	if c.stopping && m.kind != kindHanded && m.kind != kindSync {
		return // what we had is given away, and we want nothing more
	}
	switch m.kind {
	case kindState:
		c.mergeState(e.from, m)
	case kindDigest:
		c.onDigest(e.from, m)
	case kindWant:
		c.onWant(e.from)
	case kindAsk:
		c.onAsk(e.from, m)
	case kindGrant:
		c.onGrant(e.from, m)
	case kindDeny:
		c.onDeny(e.from, m)
	case kindSync:
		c.onSync(e.from, m)
	case kindAck:
		c.onAck(e.from, m)
	case kindHand:
		c.onHand(e.from, m)
	case kindHanded:
		c.onHanded(e.from, m)
	}
}

// mergeState joins what another peer knows and passes on what was new.
func (c *core) mergeState(from peer.Name, m *message) {
	c.mergeGranted(from, m, addr.Range{})
}

// mergeGranted is mergeState for a state that grants us a range.
func (c *core) mergeGranted(from peer.Name, m *message, granted addr.Range) {
	var news message
	if m.hasRing() {
		news.ring = c.mergeRing(from, m.ring, granted)
	}
	news.members = c.mergeMembers(m.members)
	if len(m.votes) > 0 && m.rng != c.universe {
		c.conflict(from, ring.ID{Range: m.rng})
	} else if c.ring == nil {
		if news.votes = c.paxos.Merge(m.votes); len(news.votes) > 0 {
			c.dirty.votes = true
			c.changed()
			news.rng = c.universe
		}
	} else if len(m.votes) > 0 && !m.hasRing() {
		c.sendAll(from, 0) // the election is over
	}
	if news.hasRing() || len(news.members) > 0 || len(news.votes) > 0 {
		c.spread(&message{kind: kindState, ring: news.ring, members: news.members, votes: news.votes, rng: news.rng})
	}
}

// mergeRing returns what was new, with no ID if nothing was.
func (c *core) mergeRing(from peer.Name, d ring.Delta, granted addr.Range) (news ring.Delta) {
	fresh := c.ring == nil
	if fresh {
		r, err := ring.New(d.ID)
		if err != nil || d.ID.Range != c.universe {
			c.conflict(from, d.ID)
			return ring.Delta{}
		}
		c.adopt(r, ringLearned)
	}
	ch, err := c.ring.Merge(d)
	var conflict *ring.ConflictError
	if errors.As(err, &conflict) {
		c.conflict(from, d.ID)
	}
	if err != nil {
		return ring.Delta{}
	}
	delete(c.conflicts, from)
	if ch.News.Empty() && !fresh {
		return ring.Delta{}
	}
	c.dirty.ring = true
	c.changed()
	for _, mv := range ch.Moves {
		if mv.From == c.self {
			c.lose(mv.Range, mv.To)
		}
	}
	for _, mv := range ch.Moves {
		if mv.To == c.self {
			c.gain(mv.Range, granted.Covers(mv.Range))
		}
	}
	c.checkFence()
	if fresh {
		return c.ring.All()
	}
	return ch.News
}

// checkFence: an administrator gave us up, and we are here.
func (c *core) checkFence() {
	f, ok := c.ring.Fence(c.self)
	if !ok || f.Boot < c.boot {
		return
	}
	c.boot = f.Boot + 1
	c.dirty.self = true
	c.note(Note{Kind: NoteRemoved, Peer: f.By, Text: c.nickOf(f.By) + " took over this host's addresses by rmpeer, but this host lives"})
	c.reported = c.now - reportPause
}

// conflict is what a peer has instead of our ring, and when people were told.
type conflict struct {
	theirs ring.ID
	told   time.Duration
}

func (c *core) conflict(from peer.Name, theirs ring.ID) {
	old, ok := c.conflicts[from]
	otherRange := theirs.Range != c.universe && theirs.Range == old.theirs.Range // divided or not
	switch {
	case !ok && len(c.conflicts) >= maxNotes, ok && old.theirs.Equal(theirs), ok && otherRange, ok && c.now-old.told < conflictPause:
		return
	}
	c.conflicts[from] = conflict{theirs, c.now}
	c.note(Note{Kind: NoteConflict, Peer: from, Text: c.conflictText(from)})
}

func (c *core) conflictText(from peer.Name) string {
	theirs := c.conflicts[from].theirs
	if theirs.Range != c.universe || c.ring == nil {
		return c.nickOf(from) + " uses another address range: ours is " + c.prefix.String() + ", theirs " + theirs.String() +
			": start all peers with the same --ipalloc-range"
	}
	return c.nickOf(from) + " has another division of the range: ours is " + c.ring.ID().String() + ", theirs " + theirs.String() +
		": weave reset the hosts of one of the two"
}

// conflictAmong returns what is wrong with the first of names that has another ring.
func (c *core) conflictAmong(names []peer.Name) (text string, ok bool) {
	for _, n := range names {
		if _, ok := c.conflicts[n]; ok {
			return c.conflictText(n), true
		}
	}
	return "", false
}

func (c *core) mergeMembers(reports []ring.Member) []ring.Member {
	for _, r := range reports {
		if r.Name == c.self {
			c.heardOfSelf(r)
		}
	}
	var news []ring.Member
	for i, r := range reports {
		old := c.members[r.Name]
		if len(c.members.Merge(reports[i:i+1])) == 0 {
			continue
		}
		news = append(news, r)
		c.changed()
		if old.Boot != r.Boot || old.Run != r.Run || old.Nick != r.Nick {
			c.dirty.members = true // the rest is not worth a write
		}
	}
	return news
}

// report tells others how much is free here, when that has changed much.
func (c *core) report() {
	if c.ring == nil || c.confirm != nil || c.fenced != "" || c.stopping || c.now-c.reported < reportPause {
		return
	}
	mine, ok := c.members[c.self]
	_, free, _ := c.space.Sizes()
	if ok && mine.Boot == c.boot && bits.Len64(mine.Free) == bits.Len64(free) {
		return
	}
	c.announce()
}

// announce makes a new record of ourselves and spreads it.
func (c *core) announce() {
	c.reported = c.now
	c.spread(&message{kind: kindState, members: []ring.Member{c.record()}})
}

// record is a new record of ourselves, and becomes part of what we know.
func (c *core) record() ring.Member {
	c.seq++
	_, free, _ := c.space.Sizes()
	mine := ring.Member{Name: c.self, Boot: c.boot, Run: c.run, Seq: c.seq, Nick: clip(c.nick, maxNick), Free: free}
	c.members[c.self] = mine
	c.changed()
	return mine
}

// all is everything that is replicated.
func (c *core) all() *message {
	m := &message{kind: kindState, members: c.members.Sorted()}
	if c.ring != nil {
		m.ring = c.ring.All()
	} else {
		m.votes, m.rng = c.paxos.Votes(), c.universe
	}
	return m
}

// sendAll sends everything to one peer, with a digest behind it if hop is not 0.
func (c *core) sendAll(to peer.Name, hop uint8) {
	for _, m := range c.all().split() {
		c.send(to, m)
	}
	if hop > 0 {
		c.send(to, c.digest(hop))
	}
}

func (c *core) digest(hop uint8) *message {
	m := &message{kind: kindDigest, sum: c.stateSum(), hop: hop}
	if c.ring != nil {
		m.ringID = idSum(c.ring.ID())
	}
	return m
}

// onDigest answers a neighbour that knows more or less than we do.
func (c *core) onDigest(from peer.Name, m *message) {
	if m.sum == c.stateSum() || m.hop > maxHop || c.hits(bugNoDigest) {
		return
	}
	if c.ring != nil && m.ringID != 0 && m.ringID != idSum(c.ring.ID()) {
		// Not replicas of one ring: say which is ours, so that both can tell people.
		c.send(from, &message{kind: kindState, ring: ring.Delta{ID: c.ring.ID()}})
		return
	}
	next := m.hop + 1
	if next > maxHop {
		next = 0
	}
	c.sendAll(from, next)
}

// changed forgets what was computed from what is replicated.
func (c *core) changed() { c.sumOK, c.peersOK = false, false }

// stateSum is equal for equal replicated states.
func (c *core) stateSum() [sumLen]byte {
	if c.sumOK {
		return c.sum
	}
	b := c.ringSumBytes()
	for _, m := range c.members.Sorted() {
		b = m.Name.AppendBytes(b)
		b = binary.BigEndian.AppendUint64(b, m.Boot)
		b = binary.BigEndian.AppendUint64(b, uint64(m.Run))
		b = binary.BigEndian.AppendUint64(b, m.Seq)
	}
	if c.ring == nil {
		for _, v := range c.paxos.Votes() {
			b = v.Elector.AppendBytes(b)
			b = binary.BigEndian.AppendUint64(b, v.Promised.Round)
			b = v.Promised.Name.AppendBytes(b)
			b = binary.BigEndian.AppendUint64(b, uint64(v.Promised.Run))
			b = binary.BigEndian.AppendUint64(b, v.Accepted.Round)
			b = v.Accepted.Name.AppendBytes(b)
		}
	}
	h := sha256.Sum256(b)
	copy(c.sum[:], h[:])
	c.sumOK = true
	return c.sum
}

func (c *core) ringSumBytes() []byte {
	if c.ring == nil {
		return nil
	}
	h := c.ring.Sum()
	return h[:]
}

func (c *core) ringSum() (s [sumLen]byte) {
	copy(s[:], c.ringSumBytes())
	return s
}
