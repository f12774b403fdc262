package ipam

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"weave/internal/peer"
	"weave/ipam/addr"
)

// The simulation: a whole network of shipped cores in one goroutine. Time, messages,
// disks, containers and faults are events of one queue, drawn from one seed, so that
// a schedule that fails can be run again exactly.

type simEvent struct {
	at  time.Duration
	seq int
	do  func()
}

func (e simEvent) before(o simEvent) bool { return e.at < o.at || e.at == o.at && e.seq < o.seq }

// simQueue is a heap. It is not container/heap's, which would put each event into
// an interface: a tenth of the simulation's time.
type simQueue []simEvent

func (q *simQueue) push(e simEvent) {
	*q = append(*q, e)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !e.before(h[up]) {
			return
		}
		h[i], h[up] = h[up], e
		i = up
	}
}

func (q *simQueue) pop() simEvent {
	h := *q
	top, e := h[0], h[len(h)-1]
	h[len(h)-1] = simEvent{} // lets go of what its closure holds
	h = h[:len(h)-1]
	*q = h
	for i := 0; len(h) > 0; {
		down := 2*i + 1
		if down+1 < len(h) && h[down+1].before(h[down]) {
			down++
		}
		if down >= len(h) || !h[down].before(e) {
			h[i] = e
			break
		}
		h[i] = h[down]
		i = down
	}
	return top
}

// sim is the network.
type sim struct {
	seed   uint64
	rnd    *rand.Rand
	now    time.Duration
	seq    int
	queue  simQueue
	hosts  []*simHost
	prefix netip.Prefix
	init   Init
	bug    bug

	cut    map[[2]int]bool // messages from, to are lost
	up     [][]bool        // links that the mesh believes in
	loss   float64
	dup    float64
	slow   float64 // share of messages that are late
	crash  float64 // chance that a host crashes between two effects
	misuse bool    // two hosts may have one address: rmpeer was used for a living one

	live      map[addr.Addr]*container // the checker: who uses what, at this instant
	failed    string
	trace     []string // the last events, for people
	tracing   bool
	calm      bool // the end of a schedule: everything is healed
	linked    time.Duration
	changes   int // of links
	runs      uint64
	checks    int
	stats     map[string]int
	callbacks map[*op]func(result)
}

// simHost is a machine: its daemon, disk, clock and containers.
type simHost struct {
	id         int
	name       peer.Name
	nick       string
	core       *core // nil: the daemon is down
	run        int   // counts starts; events of an earlier one are void
	disk       map[string][]byte
	snapshot   map[string][]byte
	gone       bool // the machine is lost for good
	left       bool // the peer has left, its heir has confirmed
	observer   bool
	isolated   bool // a copy: the mesh refuses its connections
	clock      time.Duration
	frozen     time.Duration // until then nothing moves
	containers map[string]*container
	seen       int     // of sim.changes
	inbox      []event // that came while it was frozen
	notes      []Note
	orphans    []string      // idents whose end the daemon was not told, being down; nobody will free them
	thaw       time.Duration // of the last freeze
	jumped     bool          // its clock is not to be measured by
	oldDisk    bool          // it had one: addresses of other things than containers may have come back
	leaving    bool          // it was asked to leave: no new containers there
	removed    bool          // an rmpeer was tried
}

// container uses an address from the moment it is told it until it stops.
type container struct {
	host    *simHost
	ident   string
	addr    addr.Addr
	has     bool
	stopped bool
	asking  bool
	starts  int  // a request of an earlier start is void
	plain   bool // not a container: freed only by request
}

func simName(i int) peer.Name { return peer.NameFromBytes([6]byte{2, 0, 0, 0, 1, byte(i + 1)}) }

func newSim(seed uint64, n int, prefix string, init Init) *sim {
	s := &sim{
		seed: seed, rnd: rand.New(rand.NewPCG(seed, 0x5eed)), prefix: netip.MustParsePrefix(prefix), init: init,
		cut: map[[2]int]bool{}, live: map[addr.Addr]*container{}, stats: map[string]int{}, callbacks: map[*op]func(result){},
	}
	for range n {
		s.addHost(false)
	}
	return s
}

func (s *sim) addHost(observer bool) *simHost {
	i := len(s.hosts)
	h := &simHost{id: i, name: simName(i), nick: fmt.Sprint("host", i+1), disk: map[string][]byte{}, observer: observer,
		containers: map[string]*container{}}
	s.hosts = append(s.hosts, h)
	for j := range s.up {
		s.up[j] = append(s.up[j], false)
	}
	s.up = append(s.up, make([]bool, i+1))
	return h
}

func (s *sim) after(d time.Duration, do func()) {
	s.seq++
	s.queue.push(simEvent{s.now + d, s.seq, do})
}

// onHost runs do on a host's daemon if the same run is still up by then.
func (s *sim) onHost(h *simHost, d time.Duration, do func()) {
	run := h.run
	s.after(d, func() {
		if h.core == nil || h.run != run {
			return
		}
		if h.frozen > s.now {
			s.onHost(h, min(h.frozen-s.now, 300*time.Millisecond)+time.Duration(s.rnd.Int64N(1e6)), do)
			return
		}
		do()
	})
}

func (s *sim) runFor(d time.Duration) {
	end := s.now + d
	for len(s.queue) > 0 && s.queue[0].at <= end && s.failed == "" {
		e := s.queue.pop()
		s.now = e.at
		e.do()
	}
	s.now = end
}

func (s *sim) log(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf("%10.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
	}
}

func (s *sim) fail(format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf(format, args...)
		s.log("FAILED: %s", s.failed)
	}
}

// start runs a host's daemon from what is on its disk.
func (s *sim) start(h *simHost) {
	if h.core != nil || h.gone || h.left {
		return
	}
	h.run++
	h.leaving, h.seen = false, -1
	s.runs++
	var records []Record
	for _, k := range slices.Sorted(maps.Keys(h.disk)) {
		records = append(records, Record{k, h.disk[k]})
	}
	stored, err := restore(records)
	if err != nil {
		s.fail("%s: %v", h.nick, err)
		return
	}
	init := s.init
	if h.observer && init.Mode == Consensus {
		init = Init{Mode: Observer}
	}
	c, out, err := newCore(setup{self: h.name, nick: h.nick, run: peer.UID(s.seed<<16 | s.runs<<1 | 1), universe: s.prefix,
		init: init, seed: s.rnd.Uint64(), at: s.now + h.clock, bug: s.bug}, stored)
	if err != nil {
		s.fail("%s: %v", h.nick, err)
		return
	}
	h.core = c
	s.log("%s starts with %d records, boot %d", h.nick, len(records), c.boot)
	s.carryOut(h, out)
	if h.isolated { // the mesh refuses it and says why
		s.onHost(h, time.Duration(s.rnd.Int64N(1e9)), func() { s.step(h, evFenced{"another daemon has this name"}) })
	}
	s.onHost(h, 0, func() { s.tick(h) })
	s.onHost(h, time.Duration(s.rnd.Int64N(3e9)), func() { s.gossip(h) })
	s.onHost(h, time.Duration(s.rnd.Int64N(1e9)), func() { s.reconcile(h, true) })
}

// stop ends a host's daemon; its containers live on.
func (s *sim) stop(h *simHost) {
	if h.core == nil {
		return
	}
	s.log("%s stops", h.nick)
	h.core, h.inbox = nil, nil
	h.run++
	for _, c := range h.containers {
		c.asking = false
	}
}

// reboot ends the machine's containers too.
func (s *sim) reboot(h *simHost) {
	s.stop(h)
	s.evict(h)
}

// evict ends all containers of a machine.
func (s *sim) evict(h *simHost) {
	for _, ident := range slices.Sorted(maps.Keys(h.containers)) {
		if h.containers[ident].plain {
			h.orphans = append(h.orphans, ident)
		}
		s.end(h.containers[ident])
		delete(h.containers, ident)
	}
}

func (s *sim) step(h *simHost, ev event) {
	if h.core == nil {
		return
	}
	if h.frozen > s.now {
		if h.inbox = append(h.inbox, ev); len(h.inbox) == 1 {
			s.onHost(h, 0, func() { s.drain(h) })
		}
		return
	}
	s.drain(h)
	if h.core == nil {
		return
	}
	s.carryOut(h, h.core.step(ev, s.now+h.clock))
}

// drain takes what came while the host was frozen, in order.
func (s *sim) drain(h *simHost) {
	for len(h.inbox) > 0 && h.core != nil {
		ev := h.inbox[0]
		h.inbox = h.inbox[1:]
		s.carryOut(h, h.core.step(ev, s.now+h.clock))
	}
}

// carryOut does what Allocator.carryOut does, and may crash between any two effects.
func (s *sim) carryOut(h *simHost, e effects) {
	crashed := func() bool {
		if s.crash > 0 && s.rnd.Float64() < s.crash && !h.gone {
			s.log("%s crashes between effects", h.nick)
			s.stop(h)
			s.after(time.Duration(s.rnd.Int64N(8e9)), func() { s.start(h) })
			return true
		}
		return false
	}
	if len(e.save) > 0 {
		if crashed() {
			return
		}
		for _, r := range e.save {
			if r.Value == nil {
				delete(h.disk, r.Key)
			} else {
				h.disk[r.Key] = r.Value
			}
		}
		if crashed() {
			return
		}
	}
	for _, m := range e.sends {
		if s.crash > 0 && s.rnd.IntN(4) == 0 && crashed() {
			return
		}
		if m.msg.kind == kindGrant {
			s.checkGranted(h, m.msg)
		}
		if m.to.IsZero() {
			s.spread(h, m.msg)
		} else {
			s.unicast(h, m.to, m.msg)
		}
	}
	for _, r := range e.replies { // before any answer leads to the next request
		s.checkSaved(h, r)
	}
	for _, r := range e.replies {
		if s.crash > 0 && s.rnd.IntN(4) == 0 && crashed() {
			return
		}
		if cb := s.callbacks[r.op]; cb != nil {
			delete(s.callbacks, r.op)
			cb(r.res)
		}
	}
	for _, n := range e.notes {
		s.log("%s notes %s: %s %v", h.nick, n.Kind, n.Text, n.Addrs)
		h.notes = append(h.notes, n)
	}
}

// checkSaved: an address that is promised is on the disk.
func (s *sim) checkSaved(h *simHost, r reply) {
	if r.res.err != nil || r.op.kind != opAllocate && r.op.kind != opClaim {
		return
	}
	a, _ := addr.FromNetip(r.res.prefixes[0].Addr())
	if h.disk[leaseKey(a)] == nil {
		s.fail("%s promised %v to %s and has not saved it", h.nick, a, r.op.ident)
	}
}

// checkGranted: so is a range that is given away.
func (s *sim) checkGranted(h *simHost, m *message) {
	if !s.rare() {
		return
	}
	r, err := restore([]Record{{keyRing, h.disk[keyRing]}})
	if err != nil || r.ring == nil {
		s.fail("%s gave %v away without a ring on its disk: %v", h.nick, m.rng, err)
	} else if n, _ := r.ring.Owner(m.rng.Start); n == h.name && h.core != nil {
		if now, _ := h.core.ring.Owner(m.rng.Start); now != h.name {
			s.fail("%s gave %v away and has not saved that", h.nick, m.rng)
		}
	}
}

// rare thins out checks that cost time, without touching the schedule's own dice.
func (s *sim) rare() bool {
	s.checks++
	return s.checks%8 == 0
}

// request asks a daemon for something; cb gets the answer, unless it crashes.
func (s *sim) request(h *simHost, o *op, cb func(result)) {
	s.callbacks[o] = cb
	s.step(h, evOp{o})
}

// tick is the host's mesh and clock.
func (s *sim) tick(h *simHost) {
	if s.relink(); h.seen != s.changes {
		h.seen = s.changes
		s.step(h, evMesh{s.meshOf(h)})
	} else {
		s.step(h, evTick{})
	}
	wait := 250 * time.Millisecond
	if s.calm {
		wait *= 2
	}
	s.onHost(h, wait, func() { s.tick(h) })
}

func (s *sim) meshOf(h *simHost) (m Mesh) {
	reach := s.reachable(h)
	for _, o := range s.hosts {
		if o != h && o.name != h.name {
			m.Peers = append(m.Peers, Peer{Name: o.name, Nick: o.nick, Reachable: reach[o.id]})
		}
	}
	m.Targets = 2
	return m
}

// relink lets the mesh notice, once in a while, which links work both ways.
func (s *sim) relink() {
	if s.now < s.linked+50*time.Millisecond {
		return
	}
	s.linked = s.now
	for i, a := range s.hosts {
		for j, b := range s.hosts {
			works := i != j && a.core != nil && b.core != nil && !a.isolated && !b.isolated && !s.cuts(i, j) && !s.cuts(j, i)
			if works != s.up[i][j] && (a.core == nil || b.core == nil || s.rnd.IntN(4) == 0) {
				s.up[i][j], s.up[j][i] = works, works
				s.changes++
			}
		}
	}
}

func (s *sim) cuts(from, to int) bool { return len(s.cut) > 0 && s.cut[[2]int{from, to}] }

// reachable returns which hosts there is a route to.
func (s *sim) reachable(h *simHost) []bool {
	seen := make([]bool, len(s.hosts))
	seen[h.id] = true
	todo := []int{h.id}
	for len(todo) > 0 {
		i := todo[0]
		todo = todo[1:]
		for j, up := range s.up[i] {
			if up && !seen[j] {
				seen[j] = true
				todo = append(todo, j)
			}
		}
	}
	return seen
}

// gossip compares digests with a neighbour.
func (s *sim) gossip(h *simHost) {
	if ns := s.neighbours(h); len(ns) > 0 {
		s.deliver(h, ns[s.rnd.IntN(len(ns))], h.core.digest(1))
	}
	s.onHost(h, 2*time.Second+time.Duration(s.rnd.Int64N(2e9)), func() { s.gossip(h) })
}

func (s *sim) neighbours(h *simHost) (out []*simHost) {
	for j, up := range s.up[h.id] {
		if up {
			out = append(out, s.hosts[j])
		}
	}
	return out
}

func (s *sim) spread(h *simHost, m *message) {
	ns := s.neighbours(h)
	s.rnd.Shuffle(len(ns), func(i, j int) { ns[i], ns[j] = ns[j], ns[i] })
	for _, n := range ns[:min(len(ns), 3)] {
		s.deliver(h, n, m)
	}
}

// unicast goes hop by hop where there is no link.
func (s *sim) unicast(h *simHost, to peer.Name, m *message) {
	for _, o := range s.hosts {
		if o.name != to || o == h || o.isolated {
			continue
		}
		if s.up[h.id][o.id] {
			s.deliver(h, o, m)
			return
		}
		for k := range s.hosts { // one relay is enough for these sizes
			if s.up[h.id][k] && s.up[k][o.id] && !s.cuts(h.id, k) && !s.cuts(k, o.id) {
				s.hand(h, o, m)
				return
			}
		}
	}
}

// deliver sends over a link that the mesh believes in.
func (s *sim) deliver(from, to *simHost, m *message) {
	if s.cuts(from.id, to.id) {
		return
	}
	s.hand(from, to, m)
}

// hand brings a message there: lost, doubled or late as the weather is.
func (s *sim) hand(from, to *simHost, m *message) {
	if s.rnd.Float64() < s.loss {
		return
	}
	if s.rnd.IntN(64) == 0 || s.tracing { // now and then as it goes over the wire
		got, err := decode(m.encode())
		if err != nil {
			s.fail("%s cannot read what %s sent: %v", to.nick, from.nick, err)
			return
		}
		m = got
	}
	copies := 1
	if s.rnd.Float64() < s.dup {
		copies = 2
	}
	for range copies {
		d := time.Duration(1e6 + s.rnd.Int64N(2e7))
		if s.rnd.Float64() < s.slow {
			d += time.Duration(s.rnd.Int64N(5e9))
		}
		name := from.name
		s.onHost(to, d, func() {
			if s.tracing {
				s.log("%s -> %s: %s", from.nick, to.nick, m.short())
			}
			s.step(to, evMessage{name, m})
		})
	}
}

// short is a message in words, for traces.
func (m *message) short() string {
	names := [...]string{"?", "state", "digest", "want", "ask", "grant", "deny", "sync", "ack", "hand", "handed"}
	var b strings.Builder
	b.WriteString(names[m.kind])
	if !m.rng.Empty() {
		fmt.Fprintf(&b, " %v", m.rng)
	}
	for _, e := range m.ring.Entries {
		fmt.Fprintf(&b, " %v=%d.%d.%v", e.Range, e.Epoch, e.Version, e.Owner.String()[15:])
	}
	for _, x := range m.members {
		fmt.Fprintf(&b, " %v:b%d.%x.%d", x.Name.String()[15:], x.Boot, uint64(x.Run), x.Seq)
	}
	for _, v := range m.votes {
		fmt.Fprintf(&b, " %v:p%d.%v.%x/a%d.%v.%x", v.Elector.String()[15:], v.Promised.Round, v.Promised.Name.String()[15:], uint64(v.Promised.Run)&0xff,
			v.Accepted.Round, v.Accepted.Name.String()[15:], uint64(v.Accepted.Run)&0xff)
	}
	if m.text != "" {
		b.WriteString(" " + m.text)
	}
	return b.String()
}

// reconcile tells the daemon which containers there are.
func (s *sim) reconcile(h *simHost, again bool) {
	var live []Live
	for _, ident := range slices.Sorted(maps.Keys(h.containers)) {
		c := h.containers[ident]
		if c.stopped {
			continue
		}
		l := Live{Ident: ident, Container: !c.plain}
		if c.has {
			l.Addrs = []netip.Prefix{netip.PrefixFrom(c.addr.Netip(), s.prefix.Bits())}
		}
		live = append(live, l)
	}
	s.step(h, evReconcile{live: live})
	if again {
		s.onHost(h, 20*time.Second, func() { s.reconcile(h, true) })
	}
}

// begin is the moment from which a container uses an address.
func (s *sim) begin(c *container, a addr.Addr) {
	if c.stopped || c.host.containers[c.ident] != c {
		return // it ended while it waited
	}
	if c.has && c.addr == a {
		return
	}
	if old := s.live[a]; old != nil && old != c && !s.misuse {
		s.fail("%v is in use by %s on %s and now also by %s on %s", a, old.ident, old.host.nick, c.ident, c.host.nick)
		return
	}
	if c.has && s.live[c.addr] == c {
		delete(s.live, c.addr)
	}
	c.has, c.addr = true, a
	s.live[a] = c
	s.log("%s on %s has %v", c.ident, c.host.nick, a)
	s.stats["leases"]++
}

// end is the moment from which it does not.
func (s *sim) end(c *container) {
	if c.has && s.live[c.addr] == c {
		delete(s.live, c.addr)
	}
	c.has, c.stopped, c.asking = false, true, false
	c.starts++
}
