package ipam

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
	"weave/ipam/paxos"
	"weave/ipam/ring"
	"weave/ipam/space"
)

// core is the whole state of a peer's address allocation. It changes only in step,
// has no goroutine, clock, disk or network, and draws its random numbers from a
// seed: the same events give the same effects.
type core struct {
	// Set once.
	self     peer.Name
	nick     string
	run      peer.UID
	universe addr.Range
	prefix   netip.Prefix // of universe
	init     Init
	rnd      *rand.Rand
	bug      bug // tests plant bugs here to see that they are found

	// Time.
	now   time.Duration // of our own clock
	last  time.Duration // of the host's, at the last event
	house time.Duration // of the last look at what changes slowly

	// What is known of others.
	reach      map[peer.Name]bool
	reachedNew time.Duration        // when a peer last came within reach
	nicks      map[peer.Name]string // of the mesh; members have theirs in their records
	targets    int
	members    ring.Members

	// What is replicated.
	ring  *ring.Ring // nil: not known yet
	paxos *paxos.Node
	hello syncing // to all, while there is no ring: have you got one?

	// What is ours.
	boot    uint64
	seq     uint64
	space   space.Space
	leases  map[addr.Addr]*lease
	byIdent map[string][]addr.Addr
	dying   int // how many leases are
	foreign int

	// What is going on.
	confirm    *confirmation // what we own rests until it is over; nil: it is
	fenced     string        // why we hand out nothing any more; "": we do
	stale      bool          // the mesh remembers a run of ours that our store does not
	met        bool          // a peer has answered in this run
	reconciled bool
	stopping   bool
	ops        []*op // waiting, in order of arrival
	asks       map[addr.Range]*ask
	granted    map[peer.Name]given       // the last grant to each, in case it is asked for again
	inherits   map[peer.Name]inheritance // from peers that leave
	removals   []*removal
	taken      []*takenSpace
	ending     *op // the request to leave, while we do not know yet what is ours to give
	hand       *handover
	proposed   time.Duration // when we last began an attempt; <0: never
	wanted     time.Duration // until then an observer, or somebody on its behalf, wants a ring
	wantSent   time.Duration
	reported   time.Duration
	nextID     uint64
	conflicts  map[peer.Name]conflict // peers with another ring
	doubles    map[addr.Addr]duplicate
	notes      []Note // the latest

	sum     [sumLen]byte // of all that is replicated
	sumOK   bool
	peers   []peer.Name // what others returns; never changed in place
	peersOK bool
	out     effects
	dirty   dirt
}

// dirt is what has to be saved at the end of the step.
type dirt struct {
	self, ring, members, votes bool
	leases                     map[addr.Addr]bool
	keys                       []string // to be deleted
}

// effects are what a step asks for, in this order.
type effects struct {
	save    []Record
	sends   []send
	replies []reply
	notes   []Note
}

// send is a message to one peer, or, with the zero name, to be spread.
type send struct {
	to  peer.Name
	msg *message
}

type reply struct {
	op  *op
	res result
}

// event is what happens to a core.
type event interface{ apply(*core) }

// setup is what a core begins with.
type setup struct {
	self     peer.Name
	nick     string
	run      peer.UID
	universe netip.Prefix
	init     Init
	seed     uint64 // of the random numbers
	at       time.Duration
	bug      bug
}

// newCore makes a core of what is stored, and the effects of starting. Stored state
// of another peer or range is not used.
func newCore(s setup, stored *restored) (*core, effects, error) {
	universe, err := addr.FromPrefix(s.universe)
	if err != nil {
		return nil, effects{}, err
	}
	c := &core{
		self: s.self, nick: s.nick, run: s.run, universe: universe, prefix: s.universe, init: s.init,
		rnd: rand.New(rand.NewPCG(s.seed, uint64(s.run))), bug: s.bug, last: s.at,
		reach: map[peer.Name]bool{}, nicks: map[peer.Name]string{}, members: ring.Members{},
		leases: map[addr.Addr]*lease{}, byIdent: map[string][]addr.Addr{}, asks: map[addr.Range]*ask{},
		granted: map[peer.Name]given{}, inherits: map[peer.Name]inheritance{}, conflicts: map[peer.Name]conflict{}, doubles: map[addr.Addr]duplicate{},
		proposed: -1, wantSent: -syncAgain, reported: -reportPause, house: -houseTime,
		dirty: dirt{leases: map[addr.Addr]bool{}},
	}
	c.paxos = paxos.New(c.self, c.run, s.init.Mode == Consensus, c.quorum())
	c.hello = c.newSync(ring.Delta{})
	c.load(stored)
	c.boot++
	c.dirty.self = true
	if c.ring == nil && s.init.Mode == Seed {
		r, err := ring.New(ring.NewID(universe, s.init.Seeds, 0))
		if err != nil {
			return nil, effects{}, err
		}
		c.adopt(r, ringSeeded)
	}
	c.settle()
	return c, c.flush(), nil
}

// load takes over what was stored, if it is ours.
func (c *core) load(s *restored) {
	if s == nil {
		return
	}
	why := ""
	switch {
	case !s.name.IsZero() && s.name != c.self:
		why = "stored addresses are of peer " + s.name.String() + " and are not used"
	case s.ring != nil && s.ring.ID().Range != c.universe:
		why = "stored addresses are of another range and are not used: " + s.ring.ID().String()
	}
	if why != "" {
		c.dirty.keys = s.keys
		c.note(Note{Kind: NoteStore, Text: why})
		return
	}
	c.boot = s.boot
	c.members.Merge(s.members)
	c.paxos.Merge(s.votes)
	if s.ring != nil {
		c.adopt(s.ring, ringStored)
	}
	for _, l := range s.leases {
		c.addLease(l)
		delete(c.dirty.leases, l.addr)
	}
	c.dirty.ring = false
}

// step is the allocator. at is any clock of the host; only differences count.
func (c *core) step(ev event, at time.Duration) effects {
	if d := at - c.last; d > 0 {
		c.now += min(d, maxStep)
	}
	c.last = at
	ev.apply(c)
	c.settle()
	return c.flush()
}

// settle does what the present state allows, whatever event led to it.
func (c *core) settle() {
	c.decide()
	c.checkConfirm()
	c.checkRemovals()
	c.checkTaken()
	if c.now-c.house >= houseTime {
		c.house = c.now
		c.keepHouse()
	}
	c.checkEnding()
	c.checkHand()
	c.pump()
}

// keepHouse looks at what changes slowly.
func (c *core) keepHouse() {
	c.reap()
	c.takeLate()
	c.askForForeign()
	c.compact()
	c.report()
}

func (c *core) flush() effects {
	c.saveDirt()
	out := c.out
	c.out = effects{}
	return out
}

func (c *core) saveDirt() {
	d := &c.dirty
	for _, k := range d.keys {
		c.out.save = append(c.out.save, Record{Key: k})
	}
	if d.self {
		c.out.save = append(c.out.save, encodeRecord(keySelf, storedSelf{Name: c.self.Bytes(), Boot: c.boot}))
	}
	if d.ring && c.ring != nil {
		c.out.save = append(c.out.save, encodeRecord(keyRing, ringToWire(c.ring.All())))
	}
	if d.members {
		ms := []wireMember{}
		for _, m := range c.members.Sorted() {
			ms = append(ms, memberToWire(m))
		}
		c.out.save = append(c.out.save, encodeRecord(keyMembers, ms))
	}
	if d.votes {
		vs := []wireVote{}
		for _, v := range c.paxos.Votes() {
			vs = append(vs, voteToWire(v))
		}
		c.out.save = append(c.out.save, encodeRecord(keyVotes, vs))
	}
	c.saveLeases()
	d.self, d.ring, d.members, d.votes, d.keys = false, false, false, false, nil
	clear(d.leases)
}

func (c *core) saveLeases() {
	if len(c.dirty.leases) == 0 {
		return
	}
	addrs := make([]addr.Addr, 0, len(c.dirty.leases))
	for a := range c.dirty.leases {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, addr.Addr.Compare)
	for _, a := range addrs {
		if l := c.leases[a]; l != nil {
			c.out.save = append(c.out.save, encodeRecord(leaseKey(a), storedLease{Ident: l.ident, Bits: uint8(l.bits), Container: l.container}))
		} else {
			c.out.save = append(c.out.save, Record{Key: leaseKey(a)})
		}
	}
}

func (c *core) send(to peer.Name, m *message) { c.out.sends = append(c.out.sends, send{to, m}) }

// spread sends to some neighbours, who pass on what is news to them.
func (c *core) spread(m *message) {
	if c.hits(bugNoSpread) {
		return
	}
	c.out.sends = append(c.out.sends, send{msg: m})
}

func (c *core) note(n Note) {
	if !n.Peer.IsZero() {
		n.Nick = c.nickOf(n.Peer)
	}
	c.out.notes = append(c.out.notes, n)
	if len(c.notes) >= maxNotes {
		c.notes = slices.Delete(c.notes, 0, 1)
	}
	c.notes = append(c.notes, n)
}

// nickOf is how people call a peer: its nickname if it has one.
func (c *core) nickOf(n peer.Name) string {
	if n == c.self && c.nick != "" {
		return c.nick
	}
	if m, ok := c.members[n]; ok && m.Nick != "" {
		return m.Nick
	}
	if nick := c.nicks[n]; nick != "" {
		return nick
	}
	return n.String()
}

// newID is unique in the mesh's memory: no other run begins near it.
func (c *core) newID() uint64 {
	c.nextID++
	return uint64(c.run)<<20 ^ c.nextID
}

// usable reports whether our own space may be handed out.
func (c *core) usable() bool {
	return c.ring != nil && c.confirm == nil && c.fenced == "" && !c.stopping
}

// Events from outside other than requests.

type evTick struct{}

func (evTick) apply(*core) {}

// evMesh says who is there.
type evMesh struct{ mesh Mesh }

func (e evMesh) apply(c *core) {
	before := maps.Clone(c.reach)
	clear(c.reach)
	c.peersOK = false
	c.targets = e.mesh.Targets
	for _, p := range e.mesh.Peers {
		if p.Name == c.self || p.Name.IsZero() {
			continue
		}
		if p.Reachable {
			c.reach[p.Name] = true
			if !before[p.Name] {
				c.reachedNew = c.now
			}
		}
		if p.Nick != "" {
			c.nicks[p.Name] = clip(p.Nick, maxNick)
		}
	}
	c.paxos.SetQuorum(c.quorum())
}

// evGone says that the mesh forgot a peer.
type evGone struct{ name peer.Name }

func (e evGone) apply(c *core) {
	delete(c.reach, e.name)
	c.peersOK = false
	delete(c.nicks, e.name)
	delete(c.granted, e.name)
	delete(c.inherits, e.name)
	delete(c.conflicts, e.name)
}

// evFenced says that another daemon uses our name.
type evFenced struct{ why string }

func (e evFenced) apply(c *core) { c.fenceOff(e.why) }

// fenceOff ends all handing out in this run. Containers keep what they have.
func (c *core) fenceOff(why string) {
	if c.fenced != "" || c.hits(bugNoFence) {
		return
	}
	c.fenced = why
	c.space.Hold(c.universe)
	c.note(Note{Kind: NoteIdentity, Peer: c.self, Text: why})
}
