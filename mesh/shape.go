package mesh

import (
	"cmp"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"weave/crypto/handshake"
	"weave/internal/peer"
	"weave/mesh/gossip"
	"weave/mesh/overlay"
	"weave/mesh/topo"
	"weave/mesh/wire"
)

// topologyChannel is the name of the channel that every peer has.
const topologyChannel = "topology"

// Times of the topology. A loss is told at once; what is new can wait while much is
// going on, the longer the larger the network.
const (
	announceSoon = 20 * time.Millisecond // for what comes together
	announceMin  = 100 * time.Millisecond
	announceMax  = 2 * time.Second
	announcePeer = 4 * time.Millisecond // for each known peer
	routesSoon   = 10 * time.Millisecond
	routesMin    = 100 * time.Millisecond
	routesMax    = time.Second
	routesPeer   = 2 * time.Millisecond
	collectAfter = time.Second            // that an unreachable peer is forgotten
	muteMin      = 100 * time.Millisecond // for a neighbour that hands on forgeries; doubles
	muteMax      = 10 * time.Second
)

// shape is the topology and what follows from it. It is owned by the loop, and is
// the topology's gossip.Channel.
type shape struct {
	l    *loop
	topo *topo.Topology
	now  *topo.Routes // in use

	announceDue time.Time // zero: nothing changed
	announced   time.Time
	announceGap time.Duration
	full        bool // we take no more connections but from those that must have one

	routesDue  time.Time // zero: nothing changed
	routesAt   time.Time // computed last
	collectDue time.Time // zero: all are reachable

	mutes map[peer.Name]mute // neighbours that handed on forgeries
}

type mute struct {
	until time.Time
	time  time.Duration
}

// signKey derives the key of our topology records from the static key, so that
// nothing more has to be kept.
func signKey(static *handshake.StaticKey) (ed25519.PrivateKey, error) {
	secret := static.AppendPrivate(nil)
	defer clear(secret)
	seed, err := hkdf.Key(sha256.New, secret, nil, "weave topology signing key", ed25519.SeedSize)
	if err != nil {
		return nil, err
	}
	return ed25519.NewKeyFromSeed(seed), nil
}

func newShape(l *loop) *shape {
	r := l.r
	return &shape{l: l, now: &topo.Routes{}, mutes: map[peer.Name]mute{}, announceGap: announceMin, topo: topo.New(topo.Config{
		Name: r.cfg.Name, UID: r.cfg.UID, NickName: r.cfg.NickName, Program: r.cfg.Version,
		Port: uint16(r.port.Load()), Key: r.sign, Verify: r.verify,
	})}
}

// Name implements gossip.Channel.
func (s *shape) Name() string { return topologyChannel }

// Digest implements gossip.Channel.
func (s *shape) Digest() []byte { return s.topo.Digest() }

// OnGone implements gossip.Channel.
func (s *shape) OnGone(peer.Name) {}

// OnMessage implements gossip.Channel.
func (s *shape) OnMessage(from peer.Name, msg []byte) (gossip.Reaction, error) {
	now := time.Now()
	if now.Before(s.mutes[from].until) {
		return gossip.Reaction{}, nil
	}
	version := s.topo.Local().Version
	res, err := s.topo.Step(from, msg, now)
	if errors.Is(err, topo.ErrForged) {
		s.mute(from, now)
	}
	for to, d := range res.Tell {
		s.l.tell(to, d)
	}
	if res.News != nil || s.topo.Local().Version != version {
		s.changed(now, s.topo.TakeLost())
	}
	return res.Reaction, err
}

// mute stops listening to a neighbour for a while: honest ones check before they
// hand on, and checking is expensive.
func (s *shape) mute(from peer.Name, now time.Time) {
	m := s.mutes[from]
	m.time = min(max(2*m.time, muteMin), muteMax)
	m.until = now.Add(m.time)
	s.mutes[from] = m
}

// tell sends to one neighbour.
func (l *loop) tell(to peer.Name, d gossip.Data) {
	if c := l.peers[to]; c != nil {
		c.q.offer(&parcel{channel: topologyChannel, tag: wire.TagGossip, data: d})
	}
}

// changed makes the routes due.
func (s *shape) changed(now time.Time, lost bool) {
	gap := routesMin
	if !lost {
		gap = max(routesMin, min(time.Duration(s.topo.Len())*routesPeer, routesMax))
	}
	due := now.Add(routesSoon)
	if next := s.routesAt.Add(gap); next.After(due) {
		due = next
	}
	if s.routesDue.IsZero() || due.Before(s.routesDue) {
		s.routesDue = due
	}
	s.l.findOld = true
}

// connChanged says that a connection came, went, or changed its state.
func (s *shape) connChanged(now time.Time, lost bool) {
	s.l.viewOld = true
	if lost {
		s.announceGap = announceMin
	}
	due := now.Add(announceSoon)
	if next := s.announced.Add(s.announceGap); next.After(due) {
		due = next
	}
	if s.announceDue.IsZero() || due.Before(s.announceDue) {
		s.announceDue = due
	}
	s.l.findOld = true
}

// step does what is due.
func (s *shape) step(now time.Time) {
	if s.due(&s.announceDue, now) {
		s.announce(now)
	}
	if s.due(&s.routesDue, now) {
		s.route(now)
	}
	if s.due(&s.collectDue, now) {
		s.collect(now)
	}
}

// due reports whether the time has come, and resets it then.
func (s *shape) due(at *time.Time, now time.Time) bool {
	if at.IsZero() {
		return false
	}
	if now.Before(*at) {
		s.l.wakeAt(*at)
		return false
	}
	*at = time.Time{}
	return true
}

// announce tells the others about our connections.
func (s *shape) announce(now time.Time) {
	conns := make([]topo.Conn, 0, len(s.l.peers))
	for name, c := range s.l.peers {
		conns = append(conns, topo.Conn{
			Peer: name, Mark: c.mark, Addr: c.remote, Outbound: c.outbound, Established: c.established,
		})
	}
	s.full = s.l.isFull(s.full)
	d := s.topo.SetConns(conns, s.full)
	if d.IsEmpty() {
		return
	}
	most := max(2*announceMin, min(time.Duration(s.topo.Len())*announcePeer, announceMax))
	if now.Sub(s.announced) < 4*s.announceGap {
		s.announceGap = min(2*s.announceGap, most)
	} else {
		s.announceGap = announceMin
	}
	s.announced = now
	s.l.spread(s.l.channels[0], d, nil)
	s.changed(now, s.topo.TakeLost())
}

// route computes the routes and all that follows from them.
func (s *shape) route(now time.Time) {
	s.routesAt = now
	rt := s.topo.Routes()
	if s.collectDue.IsZero() && len(rt.Messages) < s.topo.Len()-1 {
		s.collectDue = now.Add(collectAfter)
		s.l.wakeAt(s.collectDue)
	}
	s.l.viewOld = s.l.viewOld || rt != s.now || s.topo.Len() != len(s.l.known)
	if rt == s.now {
		return
	}
	s.now = rt
	s.l.maker.Rerouted()
	s.l.r.ways.setVia(rt.Messages)
	for _, c := range s.l.peers {
		c.weight = 0
	}
	for _, via := range rt.Messages {
		if c := s.l.peers[via]; c != nil {
			c.weight++
		}
	}
}

// collect forgets who was unreachable for a while.
func (s *shape) collect(now time.Time) {
	for _, n := range s.topo.Collect() {
		s.l.viewOld = true
		delete(s.mutes, n)
		s.l.r.log.Info("peer unreachable", "peer", n)
	}
	s.changed(now, true)
}

// tick does what depends on time alone.
func (s *shape) tick(now time.Time) {
	if d := s.topo.Tick(now); !d.IsEmpty() {
		s.l.spread(s.l.channels[0], d, nil)
		s.changed(now, false)
	}
}

// peersNow returns all known peers: those with records, and those connected to us
// whose record has yet to come.
func (s *shape) peersNow() map[peer.Name]Peer {
	out := make(map[peer.Name]Peer, s.topo.Len())
	for _, n := range s.topo.Names() {
		r := s.topo.Record(n)
		out[n] = Peer{Name: n, NickName: printable(r.NickName), UID: r.UID, Version: printable(r.Program)}
	}
	for n, c := range s.l.peers {
		out[n] = c.peer()
	}
	out[s.l.r.cfg.Name] = s.l.local()
	return out
}

// printable replaces what a terminal would not show: the text is the author's.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// routesNow returns routes for frames, whose next hops are all among links: what the
// others know may be behind.
func (s *shape) routesNow(links map[peer.Name][]overlay.Link) Routes {
	out := Routes{Unicast: map[peer.Name]peer.Name{}, Broadcast: map[peer.Name][]peer.Name{}, Parent: map[peer.Name]peer.Name{}}
	if s.now.Parent != nil {
		out.Parent = s.now.Parent
	}
	for to, via := range s.now.Unicast {
		if links[via] != nil {
			out.Unicast[to] = via
		}
	}
	for origin, hops := range s.now.Broadcast {
		if slices.ContainsFunc(hops, func(n peer.Name) bool { return links[n] == nil }) {
			hops = slices.DeleteFunc(slices.Clone(hops), func(n peer.Name) bool { return links[n] == nil })
		}
		if len(hops) > 0 {
			out.Broadcast[origin] = hops
		}
	}
	for n := range links { // of whom others don't know yet
		if _, ok := out.Unicast[n]; !ok {
			out.Unicast[n] = n
		}
	}
	return out
}

// somePeers returns addresses of up to n peers, for one that is turned away here:
// of some drawn at random those that have room, then those that can make some, then
// those with the fewest connections.
func (s *shape) somePeers(n int, not peer.Name) (out []netip.AddrPort) {
	names := slices.DeleteFunc(s.topo.Names(), func(p peer.Name) bool { return p == not || p == s.l.r.cfg.Name })
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:min(len(names), 4*n)]
	slices.SortStableFunc(names, func(a, b peer.Name) int {
		return cmp.Or(cmp.Compare(s.fullness(a), s.fullness(b)), cmp.Compare(s.topo.Record(a).Len(), s.topo.Record(b).Len()))
	})
	for _, name := range names {
		if c := s.l.peers[name]; c != nil && c.listen().IsValid() {
			out = append(out, c.listen())
		} else if a := s.topo.Addrs(name); len(a) > 0 {
			out = append(out, a[0])
		}
		if len(out) == n {
			break
		}
	}
	return out
}

// fullness is 0 for a peer with room, less than 2 for one that can make some.
func (s *shape) fullness(n peer.Name) int {
	switch {
	case !s.topo.Record(n).Full:
		return 0
	case s.l.spareNow().Has(n):
		return 1
	}
	return 2
}

// errKey reports a hello without a usable key for topology records.
var errKey = errors.New("no key for topology records")

func parseSignKey(b []byte) (topo.Key, error) {
	if len(b) != len(topo.Key{}) {
		return topo.Key{}, fmt.Errorf("%d bytes: %w", len(b), errKey)
	}
	return topo.Key(b), nil
}
